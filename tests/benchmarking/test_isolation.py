from reslab.benchmarking.isolation import row_without_answer


def test_a_process_that_ended_without_an_answer_is_a_row():
    assert row_without_answer(-9) == {"status": "out of memory"}
    assert row_without_answer(-6) == {"status": "failed", "error": "its process ended with SIGABRT"}
    assert row_without_answer(3) == {"status": "failed", "error": "its process ended with exit status 3"}
