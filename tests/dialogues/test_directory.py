"""The directory: a part of a name, a person or a list, a number, more."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from smsd import Message, Reply, Session
from smsd.dialogues.directory import PAGE, Directory, folded
from smsd.dialogues.loading import load
from smsd.settings.table import Person
from smsd.settings.table import load as load_settings

pytestmark = pytest.mark.asyncio

properties = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
NOBODY = "I found nobody of that name. Send me another part of it."


@dataclass(frozen=True)
class Settings:
    directory: tuple[Person, ...]


def directory(*names: str) -> Directory:
    return Directory(Settings(tuple(Person(name) for name in names)))


MANY = tuple(f"Person Number{n:02}" for n in range(1, 26))


class Thread:
    """One conversation: what is said, and the data as it would be stored between
    messages."""

    def __init__(self, dialogue: Directory) -> None:
        self.dialogue = dialogue
        self.packed = b""
        self.count = 0

    async def say(self, text: str) -> Reply:
        self.count += 1
        session = Session(self.count, packed_data=self.packed)
        message = Message("SM" + "0" * 32, "AC" + "0" * 32, "+1", "+2", text)
        answer = await self.dialogue(message, session)
        self.packed = session.packed_data(400)
        return answer if isinstance(answer, Reply) else Reply(answer)

    async def text(self, text: str) -> str:
        return (await self.say(text)).messages[0]

    async def listed(self, text: str) -> list[str]:
        return (await self.text(text)).splitlines()[1:]


def sample() -> Thread:
    """The directory that comes with smsd, found as an operator names it."""
    settings = load_settings({"SMSD_DIALOGUE": "smsd.dialogues.directory:reply"}, dev=True)
    dialogue = load(settings.dialogue, settings)._dialogue
    assert isinstance(dialogue, Directory)
    return Thread(dialogue)


async def test_one_hit_is_answered_with_name_phone_email_and_picture() -> None:
    answer = await sample().say("beat")
    assert answer.messages == ("Beatriz Núñez\n+12025550103\nbeatriz.nunez@example.com",)
    assert answer.media == ("https://example.com/directory/beatriz-nunez.jpg",)


async def test_missing_details_of_a_person_are_left_out() -> None:
    answer = await Thread(directory("Rey")).say("rey")
    assert (answer.messages, answer.media) == (("Rey",), ())


@pytest.mark.parametrize(
    "text",
    [
        "NUNEZ",
        "núñez",
        "nu\u0301n\u0303ez",
        "  Nunez \n",
        "beatriz  nunez",
        "\uff2e\uff35\uff2e\uff25\uff3a",
    ],
)
async def test_case_accents_and_outer_blanks_do_not_matter(text: str) -> None:
    assert (await sample().text(text)).startswith("Beatriz Núñez\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Elif Ayd\u0131n", "aydin"),
        ("Aydin", "AYDIN"),
        ("İpek", "ipek"),
        ("Søren Ærø", "soren aero"),
        ("Łukasz", "luk"),
        ("Weiß", "WEISS"),
        ("Þóra", "thora"),
        ("김민준", "민준"),
        ("李雷", "雷"),
    ],
)
async def test_letters_are_found_by_those_that_people_type(name: str, text: str) -> None:
    assert await Thread(directory(name, "Zz")).text(text) == name


async def test_number_picks_from_a_list_of_several_hits() -> None:
    thread = sample()
    assert (await thread.text("lindq")).splitlines() == [
        "I found 2. Send a number:",
        "1. Adam Lindqvist",
        "2. Carla Lindqvist",
    ]
    assert (await thread.text("2")).startswith("Carla Lindqvist\n")
    assert (await thread.text(" #1. ")).startswith(
        "Adam Lindqvist\n"
    )  # the list is still remembered


async def test_ten_are_listed_and_more_goes_on_with_the_eleventh() -> None:
    thread = Thread(directory(*MANY))
    assert await thread.listed("number") == [f"{n}. Person Number{n:02}" for n in range(1, 11)]
    assert await thread.listed("More ") == [f"{n}. Person Number{n:02}" for n in range(11, 21)]
    assert await thread.text("7") == "Person Number07"
    assert await thread.text("20") == "Person Number20"
    assert (await thread.text("more")).splitlines()[0] == "I found 25. Send a number:"
    assert await thread.text("25") == "Person Number25"
    assert await thread.text("more") == "That was all. Send a number from 1 to 25, or another name."


async def test_unlisted_number_is_searched_as_a_name() -> None:
    thread = Thread(directory(*MANY, "Agent 47", "Zoë"))
    await thread.say("number")
    assert await thread.text("11") == "Person Number11"  # found by its name, not by its place
    await thread.say("person")
    assert await thread.text("47") == "Agent 47"
    assert (await thread.text("0")).startswith("I found")
    assert await Thread(directory(*MANY)).text("99") == NOBODY


async def test_a_new_search_is_possible_at_any_time() -> None:
    thread = sample()
    await thread.say("lindq")
    assert (await thread.text("joana")).startswith("Joana Tanabe\n")
    assert await thread.text("1") == NOBODY  # one hit leaves no list to choose from
    assert await thread.listed("okafor") == ["1. Ada Okafor", "2. Chidi Okafor"]
    assert (await thread.text("1")).startswith("Ada Okafor\n")


async def test_search_without_hits_keeps_the_list() -> None:
    thread = sample()
    await thread.say("lindq")
    assert await thread.text("xyz") == NOBODY
    assert (await thread.text("2")).startswith("Carla")


async def test_more_without_a_list_is_a_name_like_any_other() -> None:
    assert await Thread(directory("Thomas More", "Zoë")).text("more") == "Thomas More"
    assert await sample().text("more") == NOBODY


@pytest.mark.parametrize("text", ["", " ", "\u0301"])
async def test_a_message_without_text_is_told_what_to_send(text: str) -> None:
    assert await sample().text(text) == "Send me part of a name, and I look it up."


async def test_a_number_never_picks_another_person_after_the_file_changed() -> None:
    thread = Thread(directory("Ann Lee", "Bob Lee", "Cy Lee"))
    await thread.say("lee")
    thread.dialogue.reload(Settings((Person("Zed Lee"), Person("Ann Lee"), Person("Bob Lee"))))
    assert await thread.listed("1") == ["1. Zed Lee", "2. Ann Lee", "3. Bob Lee"]
    assert await thread.text("1") == "Zed Lee"
    await thread.say("lee")
    thread.dialogue.reload(Settings((Person("Cy"),)))
    assert await thread.text("more") == NOBODY
    assert await thread.text("3") == NOBODY


async def test_the_same_file_read_again_changes_nothing() -> None:
    thread = Thread(directory("Ann Lee", "Bob Lee"))
    await thread.say("lee")
    thread.dialogue = directory("Ann Lee", "Bob Lee")
    assert await thread.text("2") == "Bob Lee"


@pytest.mark.parametrize(
    "data",
    [{"search": 1, "shown": 2}, {"search": "lee"}, {"shown": 3}, {"search": "lee", "shown": "3"}],
)
async def test_data_that_another_dialogue_left_is_no_list(data: dict[str, object]) -> None:
    thread = Thread(directory("Ann Lee", "Bob Lee"))
    thread.packed = json.dumps(data).encode()
    assert await thread.text("1") == NOBODY


async def test_longest_list_and_person_fit_into_one_message() -> None:
    name = "\U0001f600" * 5000
    long = [Person(f"{n} {name}", "1" * 3000, "e" * 3000) for n in range(20)]
    thread = Thread(Directory(Settings(tuple(long))))
    assert len((await thread.say("\U0001f600" * 60)).messages) == 1
    assert len((await thread.say("2")).messages) == 1


async def test_a_name_of_several_lines_is_listed_in_one() -> None:
    assert await Thread(directory("Ann\nLee", "Bob\tLee")).listed("lee") == [
        "1. Ann Lee",
        "2. Bob Lee",
    ]


async def test_text_too_long_to_remember_finds_nobody() -> None:
    thread = Thread(directory("\U0001f600" * 61 + "a", "\U0001f600" * 61 + "b"))
    assert await thread.text("\U0001f600" * 61) == NOBODY
    assert len(await thread.listed("\U0001f600" * 60)) == 2


texts = st.text(max_size=80) | st.sampled_from(["more", "1", "2", "11", "e", "person", "#3."])


@properties
@given(st.lists(texts, max_size=6))
async def test_every_text_gets_one_message_and_leaves_little_data(said: Iterable[str]) -> None:
    thread = Thread(directory(*MANY, "Zoë", "\U0001f600" * 60, "\U0001f600" * 61))
    for text in said:
        answer = await thread.say(text)
        assert len(answer.messages) == 1
        assert (
            sum(line.split(".")[0].isdecimal() for line in answer.messages[0].splitlines()) <= PAGE
        )


@properties
@given(st.text())
def test_a_plain_text_stays_as_it_is(text: str) -> None:
    assert folded(folded(text)) == folded(text)
