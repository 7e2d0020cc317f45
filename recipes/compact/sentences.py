"""Sentences that deny an emotion or imply one: written for this project, some of them never trained on.

Each has the intensity that it is about, and whether it stands for it (`implies`) or denies it (`denies`); a
plain sentence has none. Those at even positions of `DENIES` and `IMPLIES` are for training, those at odd
positions are only scored (`HELD_OUT`). `said.txt` holds more for training; who wrote those had not seen the
held-out ones, and the few that are the same are left out. `PATTERNS` makes more: the same words with and
without a denial.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emi_models import EMOTIONS
from recipes.compact.implied import IMPLIED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DENIES", "HELD_OUT", "IMPLIES", "MADE", "OWN", "PLAIN", "PLAIN_HELD_OUT", "Sentence"]

SAID: Final = Path(__file__).with_name("said.txt")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as a recogniser would write it, what it is about, and on which side of rest it should be.

    A plain one is about nothing (""), and shows none of the six.
    """

    text: str
    emotion: str
    shown: bool

    @property
    def column(self) -> int:
        """The place of its emotion in `EMOTIONS`."""
        return EMOTIONS.index(self.emotion)


DENIES: Final[Mapping[str, tuple[str, ...]]] = {
    "empathic_pain": (
        "i am not sad at all",
        "i don't feel sorry for them",
        "it did not hurt me one bit",
        "there is nothing to cry about",
        "i'm not upset about it anymore",
        "nobody was hurt in the accident",
        "she isn't sad she is just tired",
        "i never felt any grief about that",
        "no i'm not crying",
        "we are not mourning anything",
        "he doesn't feel any pain",
        "don't be sorry nothing bad happened",
        "it wasn't a tragedy in the least",
        "i have no regrets about it",
        "i am not heartbroken",
        "that is not a sad story",
        "my heart does not bleed for him",
        "nothing about it makes me sad",
    ),
    "amusement": (
        "this is not funny",
        "that joke was not funny at all",
        "i don't find that amusing",
        "nobody laughed",
        "stop it it isn't a joke",
        "there is nothing to laugh about",
        "i am not laughing",
        "it was supposed to be a comedy but i never laughed",
        "that wasn't hilarious in any way",
        "i can't see what is so funny here",
        "he isn't funny",
        "no one thinks this is a joke",
        "i did not laugh once",
        "this is no laughing matter",
        "it's not even a little bit funny",
        "they were not joking",
        "i fail to see the joke",
        "there was no laughter in the room",
    ),
    "joy": (
        "i am not happy about this",
        "this does not make me happy",
        "i can't say that i enjoyed it",
        "it was not a nice day",
        "nobody is happy here",
        "i am not glad that you came",
        "we were not pleased with the result",
        "she has never been happy in this house",
        "that was no fun",
        "i don't enjoy my work",
        "it wasn't a happy ending",
        "i'm far from happy",
        "he did not smile",
        "there was no joy in that room",
        "i didn't have a good time",
        "i don't love it",
    ),
    "excitement": (
        "i am not excited about the trip",
        "i don't look forward to it",
        "that is not exciting",
        "nobody can get excited about that",
        "it was not thrilling at all",
        "i wasn't very excited when i heard it",
        "the game was not exciting",
        "there is nothing to be excited about",
        "i'm not thrilled",
        "we are not eager to go",
        "the news did not excite me",
        "i can wait there is no hurry",
        "it isn't an adventure it is a chore",
        "i never get excited about football",
        "no it is nothing special",
        "the launch was not exciting for anyone",
    ),
    "admiration": (
        "i don't admire him",
        "that was not a great performance",
        "she is not a good teacher",
        "it was not impressive",
        "i have no respect for that man",
        "he isn't talented",
        "that is not well done",
        "i wouldn't call it brilliant",
        "you did not do a good job",
        "nobody was impressed",
        "there is nothing amazing about it",
        "the film was not very good",
        "i was not impressed by the speech",
        "this is not beautiful",
        "they are not heroes",
        "it isn't the best work",
    ),
    "determination": (
        "i don't want to try again",
        "i will not go on",
        "i don't hope for anything",
        "we are not going to make it",
        "i have no plans to win",
        "i can't do this anymore",
        "there is no hope",
        "i am not going to try",
        "we don't believe that it will work",
        "i don't care how it ends",
        "he never wanted it",
        "i give up",
        "it is not going to get better",
        "i have lost all hope",
        "she does not want to continue",
        "we did not even try",
    ),
}
IMPLIES: Final[Mapping[str, tuple[str, ...]]] = {
    "joy": (
        "i got the job",
        "she said yes",
        "we are going to have a baby",
        "my son came home from the war today",
        "i passed all my exams",
        "the doctor says that i am healthy again",
        "we danced until the morning",
        "the whole family was together for christmas",
        "i won the first prize",
        "it is my birthday and all my friends are here",
        "the sun is out and i have the day off",
        "they finally got married",
        "my daughter took her first steps today",
        "i have never felt so good",
        "everything turned out well in the end",
        "today was the best day of my life",
        "we found our lost dog",
        "they accepted me at the university",
        "my team has just become champion",
    ),
    "determination": (
        "i will not give up",
        "we will get there no matter what",
        "i am going to finish this race",
        "nothing can stop me now",
        "i won't rest until it is done",
        "one day i will make it",
        "we can do this together",
        "i have to try once more",
        "failure is not an option",
        "this time we are going to win",
        "i will keep fighting",
        "i get up at five every day to train",
        "we are not going back",
        "i will find a way",
        "step by step i will reach the top",
        "i swear that i will do better",
        "i am ready for the next round",
        "they will not break us",
        "i have fallen seven times and i stand up eight",
    ),
    "empathic_pain": (
        "my grandmother passed away last night",
        "her little boy is in hospital again",
        "they lost everything in the fire",
        "he sits alone at home every evening",
        "the dog waited at the door but she never came back",
        "i miss my father every day",
        "all the children in that village are starving",
        "she was only nineteen when she died",
        "he buried his wife on monday",
        "the doctors could not save her",
        "my best friend has cancer",
        "they had to put our cat to sleep",
        "the old man lost his only daughter",
        "nobody came to his funeral",
        "she cries herself to sleep",
        "the family had to leave their home behind",
        "i wish that i could take away her pain",
        "he never got to say goodbye",
        "the baby did not live to see the morning",
    ),
    "excitement": (
        "the concert is tonight and we are in the front row",
        "only two more days until we fly to japan",
        "oh my god they are coming on stage",
        "i just got tickets for the final",
        "it starts in five minutes hurry",
        "i can hardly sleep because of tomorrow",
        "the new game comes out at midnight",
        "we are about to jump out of the plane",
        "wow look at that rocket go",
        "tomorrow we finally move to the sea",
        "did you see that goal in the last second",
        "i have been counting the days",
        "my heart is beating like crazy we are next",
        "it is finally snowing let's go outside",
        "fasten your seat belt here we go",
        "any moment now the curtain will rise",
    ),
    "admiration": (
        "she saved three children from the water",
        "he plays the violin like nobody else",
        "at ninety she still runs every morning",
        "look how carefully he has carved every detail",
        "she raised four kids and finished her degree",
        "he gave away all he had to help the poor",
        "i have never seen anybody dance like that",
        "the way she leads her team is a model for us all",
        "he taught himself seven languages",
        "nobody has ever painted light like this",
        "you worked so hard for it and it shows",
        "she stood up to them all alone",
        "what you built there will last for centuries",
        "he forgave the man who hurt him",
        "the whole hall stood up and clapped for her",
    ),
    "amusement": (
        "he walked straight into the glass door again",
        "i laughed so hard that milk came out of my nose",
        "the cat fell off the sofa and pretended it was on purpose",
        "my dad tried to dance and lost his trousers",
        "she called the teacher mom in front of everybody",
        "the parrot answered the phone",
        "we could not stop giggling in church",
        "he put salt in his coffee and drank it anyway",
        "my toddler told the priest that he looks like a penguin",
        "i waved back at a stranger who meant someone else",
        "the dog stole the whole turkey and looked so innocent",
        "he wore his shirt inside out all day",
        "autocorrect turned my apology into a love letter",
        "grandpa answered the remote control",
        "the goat ate his homework for real",
        "they cracked up when the mic was still on",
    ),
}


def _every_second(first: int) -> tuple[Sentence, ...]:
    return tuple(
        Sentence(text, emotion, shown)
        for kind, shown in ((DENIES, False), (IMPLIES, True))
        for emotion, texts in kind.items()
        for text in texts[first::2]
    )


# Words of each emotion: about a person, about a thing, a noun, and what one does ("" where nothing follows).
WORDS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]]] = {
    "empathic_pain": (
        ("sad", "sorry", "hurt", "grieving", "unhappy", "in tears", "in pain", "devastated"),
        ("sad", "tragic", "heartbreaking", "painful", "a tragedy", "a loss", "awful for them"),
        ("sadness", "grief", "sorrow", "remorse", "pity", "tears"),
        ("cry", "mourn", "weep", "grieve for him", "feel sorry for her", "pity them", "suffer", "feel bad"),
    ),
    "amusement": (
        ("amused", "joking", "laughing", "funny", "giggling", "cracking up"),
        ("funny", "hilarious", "amusing", "a good joke", "comical", "a laugh", "a funny story"),
        ("laughter", "humor", "jokes", "giggles"),
        (
            "laugh",
            "laugh at it",
            "giggle",
            "find it funny",
            "find him hilarious",
            "joke",
            "see the fun in it",
        ),
    ),
    "joy": (
        ("happy", "glad", "joyful", "pleased", "delighted", "cheerful", "content"),
        ("nice", "lovely", "enjoyable", "a happy day", "a pleasure", "wonderful", "fun", "a good time"),
        ("joy", "happiness", "pleasure", "delight"),
        ("enjoy it", "love it here", "like this", "smile", "feel good", "have fun", "have a nice time"),
    ),
    "excitement": (
        ("excited", "thrilled", "eager", "looking forward to it", "pumped up", "hyped"),
        ("exciting", "thrilling", "an adventure", "breathtaking", "a thrill", "electrifying"),
        ("excitement", "anticipation", "thrill"),
        ("look forward to it", "get excited", "feel the thrill", "count the days", "jump up and down"),
    ),
    "admiration": (
        ("brilliant", "talented", "a hero", "a good worker", "impressive", "great", "a great teacher"),
        ("impressive", "amazing", "brilliant", "well made", "great", "a masterpiece", "good work"),
        ("admiration", "respect", "talent", "greatness"),
        ("admire her", "respect him", "look up to them", "do a great job", "impress me", "play beautifully"),
    ),
    "determination": (
        ("determined", "hopeful", "ready to fight", "going to win", "going to try", "optimistic"),
        ("hopeful", "going to work", "going to be fine", "going to get better", "possible"),
        ("hope", "the will to go on", "a plan", "determination"),
        (
            "keep going",
            "want to win",
            "hope for the best",
            "try again",
            "believe in it",
            "fight on",
            "want it",
        ),
    ),
}
# Each kind of word: sentences that say it, and those that deny it.
PATTERNS: Final = (
    (
        ("i am {}", "i'm so {}", "we are so {}", "she was very {}", "he is {}", "they were all {}"),
        (
            *("i am not {}", "i'm not {} at all", "i am no longer {}", "i was never {}", "i'm hardly {}"),
            *(
                "we are not so {}",
                "we aren't {} anymore",
                "none of us is {}",
                "nobody was {}",
                "no i'm not {}",
            ),
            *("she wasn't {}", "he is not very {}", "they were not {}", "i wouldn't say that i am {}"),
            *("i don't feel {}", "it didn't make me {}", "he has never been {}", "not one of them was {}"),
        ),
    ),
    (
        ("this is {}", "it was really {}", "that is so {}", "i think it is {}", "the whole day was {}"),
        (
            *("this is not {}", "this isn't {} at all", "this is hardly {}", "it was not really {}"),
            *("it wasn't {}", "it was never {}", "that is not {}", "i do not think that is {}"),
            *("nobody thinks that is {}", "there is nothing {} about it", "i can't call that {}"),
            *("it's anything but {}", "it is not even a little {}", "who says that is {} i don't"),
        ),
    ),
    (
        ("i feel {}", "there is {} in it", "i saw so much {} there", "it filled me with {}"),
        (
            *("i feel no {}", "i don't feel any {}", "i never felt {}", "there is no {} in it"),
            *("there isn't any {}", "there was nothing of {}", "i have no {}", "without any {}"),
            *("he showed no {}", "that gave me no {}", "i could not find any {} there"),
        ),
    ),
    (
        ("i {}", "we always {}", "they all {}", "it makes me {}", "i just have to {}"),
        (
            *("i don't {}", "i didn't {}", "i do not {} at all", "i can't {}", "i never {}", "we won't {}"),
            *("she doesn't {}", "he did not {}", "nobody will {}", "there is no reason to {}"),
            *("i will not {} anymore", "they never {}", "it does not make me {}", "why would i {}"),
        ),
    ),
)


def _patterns() -> tuple[Sentence, ...]:
    made = []
    for emotion, groups in WORDS.items():
        for words, (says, denials) in zip(groups, PATTERNS, strict=True):
            for word in words:
                made += [Sentence(pattern.format(word), emotion, True) for pattern in says]
                made += [Sentence(pattern.format(word), emotion, False) for pattern in denials]
    held_out = {sentence.text for sentence in HELD_OUT}
    return tuple(sentence for sentence in made if sentence.text not in held_out)


def _implied() -> tuple[Sentence, ...]:
    return tuple(
        Sentence(text, e, True) for e, texts in IMPLIED.items() for text in texts.strip().split("\n")
    )


# Plain statements: things and where they are, and what one does and when.
THINGS: Final = (
    *("box", "car", "bus", "table", "letter", "printer", "lamp", "key", "chair", "road", "house", "shop"),
    *(
        "bag",
        "cup",
        "phone",
        "laptop",
        "door",
        "picture",
        "bottle",
        "book",
        "train",
        "coat",
        "sign",
        "bridge",
    ),
    *("newspaper", "shelf", "ticket", "report", "spoon", "clock", "bike", "wall"),
)
PLACES: Final = (
    *(
        "next to the window",
        "in the hall",
        "behind the station",
        "on the left",
        "near the bank",
        "over there",
    ),
    *(
        "in the office",
        "on the second floor",
        "at the corner",
        "under the stairs",
        "in our street",
        "at home",
    ),
)
THING_PATTERNS: Final = (
    *("the {} is {}", "there is a {} {}", "i saw the {} {}", "she left the {} {}", "is the {} {}"),
    *(
        "they moved the {} and now it is {}",
        "he said that the {} was {}",
        "that {} {} is about two years old",
    ),
)
ACTS: Final = (
    *(
        "go to work",
        "read the mail",
        "make some coffee",
        "wash the dishes",
        "take the bus",
        "write the report",
    ),
    *(
        "call the office",
        "buy bread",
        "walk to the station",
        "park the car",
        "clean the table",
        "print the list",
    ),
    *("have lunch", "water the plants", "feed the cat", "close the shop", "open the window", "pay by card"),
    *(
        "change trains",
        "cook rice",
        "take out the bins",
        "check the numbers",
        "meet the plumber",
        "sign the form",
    ),
)
TIMES: Final = (
    *("at nine", "in the morning", "on mondays", "before lunch", "after the meeting", "every day", "at home"),
    *("around noon", "on the way home", "once a week", "in the evening", "tomorrow"),
)
ACT_PATTERNS: Final = (
    *(
        "i usually {} {}",
        "we {} {}",
        "they {} {}",
        "you can {} {}",
        "i have to {} {}",
        "she asked me to {} {}",
    ),
    *("he used to {} {}", "first you {} and then you wait {}"),
)


def _plain() -> tuple[Sentence, ...]:
    """Every fourth of the plain statements that the patterns make."""
    made = [
        pattern.format(first, second)
        for patterns, firsts, seconds in (
            (THING_PATTERNS, THINGS, PLACES),
            (ACT_PATTERNS, ACTS, TIMES),
        )
        for pattern in patterns
        for first in firsts
        for second in seconds
    ]
    return tuple(Sentence(text, "", False) for text in made[::4])


def _said(path: Path = SAID) -> tuple[Sentence, ...]:
    """The sentences of a file, below headings such as "# implies joy", "# denies joy" and "# plain"."""
    held_out = {sentence.text for sentence in HELD_OUT}
    found, kind, emotion = [], "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind, _, emotion = line.removeprefix("# ").partition(" ")
        elif line and line not in held_out:
            found.append(Sentence(line, emotion, kind == "implies"))
    return tuple(found)


HELD_OUT: Final = _every_second(1)
_SAID: Final = _said()
OWN: Final = (*_every_second(0), *_implied(), *(sentence for sentence in _SAID if sentence.emotion))
_PLAIN: Final = tuple(sentence for sentence in _SAID if not sentence.emotion)
PLAIN_HELD_OUT: Final = _PLAIN[1::2]
PLAIN: Final = (*_PLAIN[0::2], *(sentence for sentence in _plain() if sentence not in PLAIN_HELD_OUT))
MADE: Final = _patterns()
