"""index.html: what was found, with pictures, in one file that needs no other file, no script and no network."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from reslab.data.splits import SPLIT_WORDS
from reslab.data.thumbnails import encoded
from reslab.data_checks.check import Check
from reslab.data_checks.copies import Positions
from reslab.data_checks.result import by_importance, fact_lines
from reslab.pages import data_uri, document, facts_table, text
from reslab.text import counted

MOST_GROUPS, MOST_OF_GROUP = 20, 8  # groups of copies under each heading, and pictures of a group
MOST_BROKEN = 100
STYLE = """
.problems { list-style: none; padding: 0 } .problems li { padding: .4em .7em; margin: .3em 0; background: var(--card);
  border-left: 4px solid var(--line) } .problems .leak, .problems .labels { border-color: var(--worst) }
.problems b { margin-right: .6em }
.bar { display: flex; height: .8em; min-width: 6em; margin-top: .35em } .bar i { display: block }
.train { background: var(--train) } .val { background: var(--val) } .test { background: var(--test) }
.pictures { display: flex; flex-wrap: wrap; gap: 4px } .pictures img { display: block }
.groups { display: flex; flex-wrap: wrap; gap: .6em; margin-top: .5em }
.group { background: var(--card); padding: .6em; border-radius: 4px; display: flex; flex-wrap: wrap; gap: .6em }
figure span { display: inline-block; padding: 0 .4em; border-radius: 3px; color: #fff; text-shadow: 0 0 2px #000 }
figure div { height: 96px; display: flex; align-items: center; justify-content: center }
.bars { width: 40% } @media (max-width: 36em) { .bars { width: 20% } .bar { min-width: 0 } }
"""


class Part(NamedTuple):
    """A heading with groups of copies.

    Attributes:
        title: what they have in common.
        groups: all of them, the most important one first.
    """

    title: str
    groups: list[Positions]


def parts_of(check: Check) -> list[Part]:
    """Return the groups of copies: those across splits first, then those of several classes, then the others."""
    images = check.images
    across_splits, across_classes, rest = list[Part](), list[Part](), list[Part]()
    for name, groups in {"Identical": check.copies.identical, "Nearly identical": check.copies.near}.items():
        ordered = by_importance(images, groups)
        across = [group for group in ordered if len(set(images.splits[group])) > 1]
        within = [group for group in ordered if len(set(images.splits[group])) == 1]
        several = [group for group in within if len(set(images.labels[group])) > 1]
        others = [group for group in within if len(set(images.labels[group])) == 1]
        across_splits.append(Part(f"{name} images in two splits", across))
        across_classes.append(Part(f"{name} images of two classes", several))
        rest.append(Part(f"{name} images within a split", others))
    return [part for part in (*across_splits, *across_classes, *rest) if part.groups]


def shown_positions(parts: Sequence[Part]) -> Iterator[int]:
    """Yield the images of the groups that the page shows."""
    for part in parts:
        for group in part.groups[:MOST_GROUPS]:
            yield from group[:MOST_OF_GROUP].tolist()


def html_page(
    check: Check, parts: Sequence[Part], sheets: Sequence[Sequence[int]], pictures: Mapping[int, Image.Image]
) -> str:
    """Return the page.

    Args:
        check: what was found.
        parts: the groups of copies.
        sheets: the positions of the images to show of each class.
        pictures: the pictures of all images that are shown, by their positions.
    """
    result = check.result
    title = f"{result['data']}: {result['images']:,} images, {len(check.images.data.classes):,} classes"
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="quiet">{text(result["root"])}</p>' if result["root"] else "",
        problem_list(result),
        *(part_section(check, part, pictures) for part in parts),
        class_table(result),
        fact_table(result),
        broken_files(result),
        *sheet_sections(check, sheets, pictures),
    ]
    return document(title, "\n".join(filter(None, body)), STYLE)


def problem_list(result: Mapping[str, Any]) -> str:
    lines = (
        f'<li class="{each["kind"].split()[0]}"><b>{text(each["kind"])}</b>{text(each["text"])}</li>'
        for each in result["problems"]
    )
    found = "".join(lines)
    return f'<ul class="problems">{found}</ul>' if found else "<p>Nothing is wrong with the images.</p>"


def part_section(check: Check, part: Part, pictures: Mapping[int, Image.Image]) -> str:
    shown = [group_figures(check, group, pictures) for group in part.groups[:MOST_GROUPS]]
    count = counted(len(part.groups), "group")
    more = f"; the first {len(shown)} are shown, and check.json has the others" if len(part.groups) > len(shown) else ""
    return f'<h2>{text(part.title)}</h2><p class="quiet">{count}{more}</p><div class="groups">{"".join(shown)}</div>'


def group_figures(check: Check, group: Positions, pictures: Mapping[int, Image.Image]) -> str:
    figures = [figure(check, position, pictures) for position in group[:MOST_OF_GROUP].tolist()]
    more = f'<p class="quiet">and {len(group) - MOST_OF_GROUP:,} more</p>' if len(group) > MOST_OF_GROUP else ""
    return f'<div class="group">{"".join(figures)}{more}</div>'


def figure(check: Check, position: int, pictures: Mapping[int, Image.Image]) -> str:
    images = check.images
    split, name = images.names[images.splits[position]], text(images.name(position))
    label = text(images.data.classes[images.labels[position]])
    caption = f'<span class="{split}">{SPLIT_WORDS[split]}</span> <b>{label}</b><br>{name}'
    picture = image_tag(pictures[position], name) if position in pictures else ""
    return f"<figure><div>{picture}</div>{caption}</figure>"


def image_tag(picture: Image.Image, name: str) -> str:
    """Return the tag of a picture that holds its file. `name` is escaped already."""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img {size} alt="{name}" title="{name}" src="{data_uri(encoded(picture))}">'


def class_table(result: Mapping[str, Any]) -> str:
    """Return the number of images of each class in each split, with a bar as long as all of them."""
    splits = result["splits"]
    longest = max(sum(split["classes"][name] for split in splits.values()) for name in splits["train"]["classes"]) or 1
    rows = []
    for name in splits["train"]["classes"]:
        counts = {split: each["classes"][name] for split, each in splits.items()}
        bar = "".join(f'<i class="{split}" style="width:{100 * n / longest:.2f}%"></i>' for split, n in counts.items())
        cells = "".join(f'<td class="number">{count:,}</td>' for count in counts.values())
        rows.append(f'<tr><td>{text(name)}</td>{cells}<td class="bars"><div class="bar">{bar}</div></td></tr>')
    head = "".join(f'<th class="number">{SPLIT_WORDS[split]}</th>' for split in splits)
    total = "".join(f'<th class="number">{each["images"]:,}</th>' for each in splits.values())
    return (
        f"<h2>Classes</h2><table><thead><tr><th>class</th>{head}<th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody><tfoot><tr><th>all</th>{total}<th></th></tr></tfoot></table>"
    )


def fact_table(result: Mapping[str, Any]) -> str:
    return f"<h2>Images</h2>{facts_table({name: [line] for name, line in fact_lines(result)})}"


def broken_files(result: Mapping[str, Any]) -> str:
    broken = result["unreadable"]
    if not broken:
        return ""
    rows = "".join(
        f"<tr><td>{text(each['image'])}</td><td>{text(each['reason'])}</td></tr>" for each in broken[:MOST_BROKEN]
    )
    more = f'<p class="quiet">and {len(broken) - MOST_BROKEN:,} more</p>' if len(broken) > MOST_BROKEN else ""
    return f"<h2>Files that cannot be read</h2><table><tbody>{rows}</tbody></table>{more}"


def sheet_sections(check: Check, sheets: Sequence[Sequence[int]], pictures: Mapping[int, Image.Image]) -> Iterator[str]:
    """Yield the pictures of each class."""
    yield "<h2>Examples of each class</h2>"
    for name, positions in zip(check.images.data.classes, sheets, strict=True):
        tags = (image_tag(pictures[each], text(check.images.name(each))) for each in positions if each in pictures)
        yield f'<h3>{text(name)}</h3><div class="pictures">{"".join(tags) or "no image"}</div>'
