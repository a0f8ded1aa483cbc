"""Hooks of MkDocs: the site has the paths of the repository, so that every relative link works there and on GitHub.

The page of a method is written from the docstring and the fields of its file, those of recipe and results from their
types.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from sdcompress import recipes, registry
from sdcompress.schema import report
from sdcompress.schema.recipe import Recipe

ROOT = Path(__file__).parents[2]
METHODS = ROOT / "sdcompress" / "methods"
STATIC = (".css", ".html", ".json", ".md", ".png", ".py", ".svg", ".yaml", "Containerfile")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entries of the navigation that hold a star by the files that match."""
    config.nav = [{title: _listed(entry) for title, entry in section.items()} for section in config.nav or []]
    config.watch = [*config.watch, *(str(ROOT / name) for name in ("README.md", "benchmarks", "sdcompress"))]
    return config


def _listed(entry: Any) -> Any:
    if not isinstance(entry, list):
        return entry
    return [path for page in entry for path in ([page] if "*" not in page else _matches(page))]


def _matches(pattern: str) -> list[str]:
    pages = [*_method_pages(), *(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))]
    return sorted(page for page in pages if Path(page).match(pattern))


def _method_pages() -> dict[str, Path]:
    return {f"sdcompress/methods/{path.stem}.md": path for path in METHODS.glob("[!_]*.py")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site: README, docs, benchmarks, recipes as they lie, and the pages of the methods."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = [ROOT / "README.md", *(ROOT / "sdcompress" / "recipes").glob("*.yaml")]
    for folder in ("docs", "benchmarks"):
        paths += [
            path for path in (ROOT / folder).rglob("*") if (path.suffix or path.name) in STATIC and path.is_file()
        ]
    as_they_lie = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    written = [File.generated(config, name, content=method_page(path)) for name, path in _method_pages().items()]
    written.append(File.generated(config, "docs/recipe.md", content=recipe_page()))
    written.append(File.generated(config, "docs/results.md", content=results_page()))
    return Files([*theme, *as_they_lie, *written])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to a method's file to its page, and put the table of methods where a page asks for it."""
    markdown = markdown.replace("<!-- table of methods -->", methods_table())
    return re.sub(r"(\]\([^)\s]*sdcompress/methods/[a-z]\w*)\.py\)", r"\1.md)", markdown)


def methods_table() -> str:
    """The methods in Markdown, as a table: name, teacher, whether exits and mixing are on."""
    head = "| method | what teaches | exits in training | mixup, CutMix |\n|---|---|---|---|\n"
    return head + "".join(map(_row, sorted(METHODS.glob("[!_]*.py"))))


def _row(path: Path) -> str:
    kind = _class(ast.parse(path.read_text(encoding="utf-8")))
    teacher = (ast.get_docstring(kind) or "").partition("\n")[0]
    flags = " | ".join("yes" if flag else "no" for flag in needs(kind))
    return f"| [`{path.stem}`](../sdcompress/methods/{path.stem}.py) | {teacher} | {flags} |\n"


def needs(kind: ast.ClassDef) -> tuple[bool, bool]:
    """Whether a method trains with exits, and whether mixup and CutMix may be on."""
    calls = (node for node in ast.walk(kind) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Needs")
    keywords = {word.arg: ast.unparse(word.value) == "True" for call in calls for word in call.keywords}
    label = "LabelMethod" in map(ast.unparse, kind.bases)
    return keywords.get("exits", not label), keywords.get("mixing", True)


def _class(module: ast.Module) -> ast.ClassDef:
    (kind,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    return kind


def method_page(path: Path) -> str:
    """A method's page in Markdown: its docstring, its parameters with range and default, its code."""
    source = path.read_text(encoding="utf-8")
    module = ast.parse(source)
    kind = _class(module)
    text = re.sub(r"``", "`", ast.get_docstring(module) or "")
    text = re.sub(r"\barXiv\s(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    text = re.sub(r"\bdoi\s(10\.[^\s,;)]*[^\s,;).])", r"[doi \1](https://doi.org/\1)", text)
    text = re.sub(r"^([A-Z][a-z]+( from [^:\n]*)?:)(?=\s)", r"**\1**", text, flags=re.MULTILINE)
    code = ast.get_source_segment(source, kind) or ""
    head = f"# {path.stem}\n\n{text}\n\n{_parameters(kind)}{_presets(path.stem)}\n"
    return head + '\n??? quote "Source"\n\n' + _indented(f"```python\n{code}\n```") + "\n"


def _parameters(kind: ast.ClassDef) -> str:
    meanings = dict(re.findall(r"^\s*(\w+): ((?:.|\n(?=\s{6,}))+)", ast.get_docstring(kind) or "", re.MULTILINE))
    rows = [
        f"| `{field.target.id}` | {ast.literal_eval(field.value)} | {_range(field.annotation)} | "
        f"{' '.join(meanings[field.target.id].split())} |"
        for field in kind.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id in meanings
    ]
    head = "| parameter | default | range | meaning |\n|---|---|---|---|\n"
    return head + "\n".join(rows) if rows else "It has no parameters."


def _presets(method: str) -> str:
    """What each preset sets, a line for each."""
    texts = (
        f"\n\n`preset: {name}` sets " + ", ".join(f"`{key}: {number:g}`" for key, number in numbers.items()) + "."
        for name, numbers in registry.presets("sdcompress.methods", method).items()
    )
    return "".join(texts)


def _range(annotation: ast.expr) -> str:
    fields = (METHODS / "_base.py").read_text(encoding="utf-8")
    (limits,) = re.findall(rf"^{ast.unparse(annotation)} = (.*)$", fields, re.MULTILINE)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{signs[key]} {float(number):g}" for key, number in re.findall(r"\b([gl][et])=([\d.]+)", limits))


def recipe_page() -> str:
    """The recipe in Markdown: a table of keys with their defaults and descriptions for each section."""
    head = "# The recipe\n\n`--set KEY=VALUE` sets any of these keys. `sdcompress list keys` prints them.\n"
    rows = {"": list[str]()}
    for key, default, meaning in recipes.all_keys():
        section = key.partition(".")[0] if "." in key else ""
        shown = "none" if default is None else f"`{json.dumps(default)}`"
        cells = (f"`{key}`", shown, meaning.replace("|", "\\|"))
        rows.setdefault(section, []).append(f"| {' | '.join(cells)} |")
    table = "| key | default | meaning |\n|---|---|---|\n"
    return head + "".join(
        (f"\n## {name}\n\n{getattr(Recipe(), name).__doc__}\n" if name else "") + f"\n{table}" + "\n".join(lines) + "\n"
        for name, lines in rows.items()
    )


def results_page() -> str:
    """What the verbs measure, in Markdown: a table of fields with their types and descriptions for each type."""
    kinds = [kind for kind in map(vars(report).get, sorted(report.__all__)) if isinstance(kind, type)]
    return "# Results\n\nThe fields of the objects that the verbs return and write as JSON.\n" + "".join(
        map(_fields, kinds)
    )


def _fields(kind: type[BaseModel]) -> str:
    rows = "".join(
        f"| `{name}` | `{kind.__annotations__[name]}` | {field.description or ''} |\n"
        for name, field in kind.model_fields.items()
        if name in kind.__annotations__
    )
    return f"\n## {kind.__name__}\n\n{kind.__doc__}\n\n| field | type | meaning |\n|---|---|---|\n{rows}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
