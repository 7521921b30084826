"""The commands of the README and of the pages under docs/, run as they are printed.

`PAGES` says of each block of commands whether it is run here, or why not. A block that is not in it
fails a test, and so does one that no page has any more.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import typer.main
from smsctl.main import app

from local.processes import free_port
from local.stack import CHECKOUT
from local.temporal import cache_folder
from tests.make_run import make_run, remove_data

LANGUAGES: Final = {"sh", "bash", "python"}
COMMANDS: Final = re.compile(r"(smsctl|curl|make|pip|python|docker|git|sh) ")

DOCKER: Final = "needs Docker, on which tests/deploy/walk_deployment.py runs the page"
RECEIVERS: Final = "tests/domain/test_callback_receivers.py runs it"
INSTALLS: Final = "reads from a package index; sdks/python/tests/test_package.py builds the wheels"
ALL_TESTS: Final = "runs all the tests, of which this is one"


@dataclass(frozen=True, slots=True)
class Runs:
    """Run here.

    Attributes:
        begins: how the block begins.
        instead: what the reader has to fill in, and with what.
        files: what the page supposes in the folder, by name.
        before: what a Python block supposes to have run before it.
        printed: whether the next block of the page is its output, apart from ids and times.
    """

    begins: str
    instead: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    printed: bool = False


@dataclass(frozen=True, slots=True)
class Serves:
    """Started here, and stopped when it has printed what the next block of the page shows."""

    begins: str
    ports: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NotRun:
    """Not run here, for a reason."""

    begins: str
    reason: str


GUESTS: Final = 'to,name\n+447700900123,Ann\n+447700900124,"Ben, and Cy"\n'
CLIENT: Final = {"https://sms.example.com": "$API", "sg_live_…": "$KEY"}

PAGES: Final[Mapping[str, Sequence[Runs | Serves | NotRun]]] = {
    "README.md": (
        NotRun("make demo", "`make run` is what these commands run on; .ci/run runs the demo"),
        Runs("curl -sS $API"),
        Runs(". .venv/bin/activate", instead={"msg_…": "$MESSAGE"}),
        Runs("cat > people.csv"),
        NotRun("make test", ALL_TESTS),
    ),
    "CONTRIBUTING.md": (NotRun("make setup", ALL_TESTS),),
    "sdks/python/README.md": (
        NotRun("pip install", INSTALLS),
        Runs("from smsgateway import Client", instead=CLIENT),
        Runs(
            "from smsgateway import Recipient",
            before="from smsgateway import Client\ngateway = Client('$API', '$KEY')\n",
        ),
        Runs("from smsgateway import CallbackRefused"),
    ),
    "smsctl/README.md": (
        NotRun("pip install", INSTALLS),
        Runs(
            "smsctl profile add prod",
            instead={"https://sms.example.com": "$API", "msg_…": "$MESSAGE"},
            files={"guests.csv": GUESTS},
        ),
    ),
    "docs/api.md": (
        Runs("curl -sS $API", printed=True),
        Runs("curl -sS $API"),
        NotRun("curl -sS -X POST", "names an account that its own first command creates"),
    ),
    "docs/callbacks.md": (
        NotRun("import base64", RECEIVERS),
        NotRun("def events_of", RECEIVERS),
    ),
    "docs/deployment.md": tuple(
        NotRun(begins, DOCKER)
        for begins in (
            "sh deploy/secrets.sh",
            "export SMSCTL_KEY",
            "docker compose exec -T --env SMSCTL_OPERATOR_KEY api smsctl config apply",
            "docker compose exec --env SMSCTL_OPERATOR_KEY api smsctl account create",
            "docker compose exec --env SMSCTL_KEY api smsctl key create",
            "git pull",
            "docker compose exec temporal temporal-server",
            "docker compose up --detach --scale",
            "docker compose exec -T postgres pg_dump",
            "docker compose stop api",
            "docker compose exec --env SMSCTL_KEY api smsctl message list",
        )
    ),
    "docs/simulator.md": (
        Serves("python -m simulator --name primary", ports=("2775", "8081")),
        Serves("python -m simulator --name http_backup", ports=("8082", "8083")),
        NotRun("async with Smsc", "part of a test; tests/simulator/conftest.py has a whole"),
    ),
    "docs/smsctl.md": (
        NotRun("pip install", INSTALLS),
        Runs("smsctl provider test primary"),
        Runs("smsctl batch send guests.csv", files={"guests.csv": GUESTS}),
        Runs("id=$(smsctl send", files={"guests.csv": GUESTS, "text": "Hello"}),
    ),
    "docs/temporal.md": (
        Runs(
            'export PATH="$PATH',
            before='MESSAGE=$(curl -sS $API/api/v1/sms/send -H "Authorization: Bearer $KEY"'
            " -H 'Content-Type: application/json'"
            """ -d '{"to": "+447700900123", "from": "Acme", "body": "Hello"}' | jq -r .message_id)\n"""
            "sleep 5  # until its workflow has started\n",
            instead={
                "~/.cache/smsgateway": "$CACHE",
                "127.0.0.1:…": "$TEMPORAL",
                "msg_…": "$MESSAGE",
            },
        ),
    ),
    "docs/testing.md": (
        NotRun("make test", ALL_TESTS),
        NotRun("for n in", "keeps the machine busy for half an hour"),
    ),
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"


def blocks_of(page: str) -> list[Block]:
    text = (CHECKOUT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2].strip(), found[3])
        for found in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE)
    ]


def pages() -> list[str]:
    """Every page that people read, apart from decisions, which have no commands to follow."""
    top = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    packages = [CHECKOUT / "sdks/python/README.md", CHECKOUT / "smsctl/README.md"]
    docs = [*CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("docs/providers/*.md")]
    found = [*top, *packages, *sorted(docs)]
    return [str(page.relative_to(CHECKOUT)) for page in found]


@pytest.mark.parametrize("page", pages())
def test_every_block_of_commands_is_run_or_has_a_reason_not_to_be(page: str) -> None:
    blocks = [block for block in blocks_of(page) if block.language in LANGUAGES]
    classes = PAGES.get(page, ())
    for block, known in zip(blocks, classes, strict=False):
        assert block.text.startswith(known.begins), f"{block}\nstands where PAGES has {known}"
    assert len(blocks) == len(classes), f"PAGES has another number of blocks than {page}"


@pytest.mark.parametrize("page", pages())
def test_every_block_that_begins_with_a_command_says_its_language(page: str) -> None:
    bare = [str(block) for block in blocks_of(page) if not block.language]
    assert [block for block in bare if COMMANDS.match(block.partition(": ")[2])] == []


# smsctl and make, wherever a page names them


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name), command


SMSCTL: Final = dict(commands_of(typer.main.get_command(app)))


def smsctl_calls(page: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Each command line of smsctl in the page, with its words."""
    text = re.sub(r"\\\n", " ", (CHECKOUT / page).read_text())
    blocks = "\n".join(block.text for block in blocks_of(page) if block.language == "sh")
    lines = [re.sub(r"\\\n", " ", line) for line in re.sub(r"\\\n", " ", blocks).splitlines()]
    spans = re.findall(r"`((?:smsctl )[^`\n]*(?:\n[^`\n]+)?)`", text)
    for line in [*spans, *lines]:
        for call in re.findall(r"\bsmsctl ([^|;)#]*)", line):
            without_texts = re.sub(r'"[^"]*"|\'[^\']*\'', "x", call.partition(" && ")[0])
            yield call, without_texts.replace("\\|", "|").split()


@pytest.mark.parametrize("page", pages())
def test_smsctl_has_every_command_and_option_that_a_page_calls(page: str) -> None:
    for call, words in smsctl_calls(page):
        if not words or words[0].startswith("-"):
            continue  # options of the program itself
        name = tuple(words[:1]) if (words[0],) in SMSCTL else tuple(words[:2])
        if len(name) == 1 and name not in SMSCTL:
            assert name[0] in {group for group, *_ in SMSCTL}, call
            continue  # a group by its name
        command = SMSCTL.get(name)
        assert command is not None, f"{page}: smsctl {call}"
        has = {option for parameter in command.params for option in parameter.opts}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= has | {"--help"}, f"{page}: smsctl {call}"


def test_the_page_of_smsctl_names_every_command_and_no_other() -> None:
    text = (CHECKOUT / "docs/smsctl.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \| ", text[: text.index("Lists take")], re.MULTILINE)
    named: set[tuple[str, ...]] = set()
    for row in rows:
        group = ""
        for span in re.findall(r"`([^-`][^`]*)`", row):
            words = re.findall(r"[a-z][a-z-]*", re.split(r" [-\[A-Z]", span)[0])
            if (words[0],) in SMSCTL:
                named.add((words[0],))
                continue
            group, verb = (words[0], words[1]) if len(words) > 1 else (group, words[0])
            named.add((group, verb))
    assert named == set(SMSCTL)


@pytest.mark.parametrize("page", pages())
def test_make_has_every_target_that_a_page_calls(page: str) -> None:
    targets = set(
        re.findall(r"^\.PHONY: (\S+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    )
    text = (CHECKOUT / page).read_text()
    calls = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([^`]+)`", text)
    for block in blocks_of(page):
        if block.language == "sh":
            calls += re.findall(r"^make ([^#&\n]+)", block.text, re.MULTILINE)
    for call in calls:
        words = re.sub(r'"[^"]*"', "", call).split()
        assert {word for word in words if "=" not in word} <= targets, call


# Running them


@dataclass
class Reader:
    """Somebody who follows the pages, with a `make run` beside them."""

    folder: Path
    variables: dict[str, str]

    def follow(self, page: str) -> None:
        place = self.folder / page.replace("/", "_")
        place.mkdir()
        (place / ".venv").symlink_to(sys.prefix)
        shutil.copy(self.folder / "build/stack/gateway.toml", place / "gateway.toml")
        blocks = blocks_of(page)
        commands = [number for number, each in enumerate(blocks) if each.language in LANGUAGES]
        for number, known in zip(commands, PAGES[page], strict=True):
            following = blocks[number + 1] if number + 1 < len(blocks) else None
            match known:
                case Runs():
                    output = self._run(blocks[number], known, place)
                    if known.printed:
                        assert following is not None
                        assert without_ids(output) == without_ids(following.text)
                case Serves():
                    assert following is not None
                    asyncio.run(self._serve(blocks[number], known, following.text))
                case NotRun():
                    pass

    def _run(self, block: Block, known: Runs, place: Path) -> str:
        for name, content in known.files.items():
            (place / name).write_text(content)
        text = known.before + block.text
        for written, meant in known.instead.items():
            assert written in text, f"{block} has no {written}"
            text = text.replace(written, meant)
        if block.language == "python":
            text = re.sub(r"\$(\w+)", lambda name: self.variables[name[1]], text)
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euc"]
        done = subprocess.run(
            [*command, text],
            check=False,
            cwd=place,
            env=os.environ | self.variables | {"XDG_CONFIG_HOME": str(place / ".config")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if message := re.search(r"msg_[0-9a-f]{32}", done.stdout):
            self.variables["MESSAGE"] = message[0]
        return done.stdout

    async def _serve(self, block: Block, known: Serves, shown: str) -> None:
        command = block.text
        for port in known.ports:
            free = str(free_port())
            assert port in command
            command, shown = command.replace(port, free), shown.replace(port, free)
        process = await asyncio.create_subprocess_exec(
            *command.replace("python ", f"{sys.executable} ", 1).split(),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 120)
            assert json.loads(line) == json.loads(shown), str(block)
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 120) == 0, str(block)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def without_ids(printed: str) -> Any:
    return json.loads(re.sub(r"[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+Z", "…", printed))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("documented")
    build = folder / "build"
    try:
        with make_run(build, SMSGATEWAY_WORKERS="1") as run:
            announced = run.wait_until_up()
            key = announced["api_key"]
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            sent = httpx.post(
                f"{announced['api']}/api/v1/sms/send",
                headers={"Authorization": f"Bearer {key}"},
                json={"to": "+447700900123", "from": "Acme", "body": "Hello"},
                timeout=60,
            )
            yield Reader(
                folder,
                {
                    "MESSAGE": sent.raise_for_status().json()["message_id"],
                    "HOME": str(folder),
                    "PATH": path,
                    "CACHE": str(cache_folder()),
                    "TEMPORAL": json.loads((build / "run.json").read_text())["temporal"],
                    "API": announced["api"],
                    "KEY": key,
                    "SMS_KEY": key,
                },
            )
            run.process.send_signal(signal.SIGTERM)
            assert run.process.wait(120) == 0, run.output
    finally:
        remove_data(build)


FOLLOWED: Final = [
    page for page, known in PAGES.items() if any(not isinstance(each, NotRun) for each in known)
]


@pytest.mark.stack
@pytest.mark.shell
@pytest.mark.parametrize("page", FOLLOWED)
def test_the_commands_of_a_page_do_what_it_says(page: str, reader: Reader) -> None:
    reader.follow(page)
