from reslab.pages import text


def test_a_name_of_a_file_that_is_no_text_is_shown_by_its_bytes():
    assert text("a\udcff\udcfe<\n.png") == r"a\xff\xfe&lt;\n.png"
