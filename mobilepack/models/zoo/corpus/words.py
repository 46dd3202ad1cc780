"""The word lists behind the generated text. All original; a slot in a template names a list."""

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


NAMES: Final = _words(
    "Anna Ben Clara Daniel Emma Felix Grace Hugo Iris Jack Kate Leo Mia Noah Olive Peter Rosa Sam "
    "Tina Victor Wendy Yuna Zoe Adam Bella Carlos Dora Ethan Flora George Hana Ivan Julia Kevin "
    "Lucy Max Nora Oscar Paula Robin Sofia Thomas Uma Minho Jisoo Sora Omar Lena"
)
ANIMALS: Final = _words(
    "cat dog fox rabbit bear owl duck goat horse cow pig sheep hen mouse frog turtle squirrel "
    "hedgehog deer wolf crow swan donkey beaver badger otter robin goose lizard snail"
)
HERDS: Final = _words(
    "cats dogs foxes rabbits bears owls ducks goats horses cows pigs sheep hens mice frogs geese "
    "turtles squirrels deer wolves crows swans donkeys beavers otters robins lizards snails"
)
OBJECTS: Final = _words(
    "kite ball key book lamp cup hat coin drum bell basket umbrella ring map bottle blanket scarf "
    "box whistle mirror clock pencil shell feather ribbon boat button candle letter flute glove "
    "telescope lantern ladder bucket needle wheel stone rope jar"
)
PLACES: Final = _phrases(
    "garden, kitchen, forest, market, library, school, river, harbour, meadow, barn, village, "
    "park, beach, castle, tower, bridge, orchard, station, museum, bakery, valley, island, cave, "
    "attic, cellar, field, square, workshop, playground, lighthouse"
)
COLOURS: Final = _words("red blue green yellow white black brown pink orange purple grey golden")
FOODS: Final = _words(
    "bread soup cheese apples pears rice cake honey cherries carrots noodles porridge plums "
    "pancakes beans grapes potatoes berries nuts eggs"
)
ADJECTIVES: Final = _words(
    "old new small big shiny soft heavy light round broken clean dusty tiny strange pretty plain"
)
MOODS: Final = _words("happy sad tired proud curious worried hungry brave calm shy excited angry")
TRAITS: Final = _words("kind clever quiet friendly careful funny patient lazy gentle honest")
WEATHER: Final = _words("sunny rainy windy cold warm cloudy foggy snowy bright grey")
TIMES: Final = _words("morning afternoon evening day night")
JOBS: Final = _words(
    "baker teacher farmer sailor doctor painter gardener singer miller tailor driver cook "
    "fisherman carpenter postman librarian"
)
PLAIN: Final = _words(
    "apple river stone cloud table window paper garden silver winter music bread tiger ocean "
    "candle mountain pocket bridge lemon rocket flower forest shadow button market spoon violin "
    "castle pepper island dragon puzzle rabbit ticket engine planet feather mirror basket ladder "
    "needle orange pencil ribbon saddle temple velvet wagon yellow zebra anchor barrel copper "
    "desert elbow finger guitar hammer insect jacket kettle"
)
LETTERS: Final = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBER_WORDS: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
DAYS: Final = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS: Final = _words(
    "January February March April May June July August September October November December"
)

POOLS: Final[dict[str, tuple[str, ...]]] = {
    "name": NAMES,
    "animal": ANIMALS,
    "herd": HERDS,
    "object": OBJECTS,
    "place": PLACES,
    "colour": COLOURS,
    "food": FOODS,
    "adj": ADJECTIVES,
    "mood": MOODS,
    "trait": TRAITS,
    "weather": WEATHER,
    "time": TIMES,
    "job": JOBS,
    "count": NUMBER_WORDS[2:10],
    "day": DAYS,
    "month": MONTHS,
}
