"""Names that prompts use: objects, colours and places, and the code points of the emoji that show the objects."""

EMOJI = {
    # animals
    "cat": 0x1F431, "dog": 0x1F436, "mouse": 0x1F42D, "rabbit": 0x1F430, "fox": 0x1F98A, "bear": 0x1F43B,
    "panda": 0x1F43C, "koala": 0x1F428, "tiger": 0x1F42F, "lion": 0x1F981, "cow": 0x1F42E, "pig": 0x1F437,
    "frog": 0x1F438, "monkey": 0x1F435, "chicken": 0x1F414, "penguin": 0x1F427, "bird": 0x1F426, "duck": 0x1F986,
    "owl": 0x1F989, "bat": 0x1F987, "wolf": 0x1F43A, "unicorn": 0x1F984, "bee": 0x1F41D, "butterfly": 0x1F98B,
    "snail": 0x1F40C, "ladybug": 0x1F41E, "spider": 0x1F577, "turtle": 0x1F422, "snake": 0x1F40D, "octopus": 0x1F419,
    "crab": 0x1F980, "fish": 0x1F41F, "dolphin": 0x1F42C, "whale": 0x1F433, "shark": 0x1F988, "elephant": 0x1F418,
    "dinosaur": 0x1F995, "hedgehog": 0x1F994, "camel": 0x1F42A, "giraffe": 0x1F992,
    # food
    "apple": 0x1F34E, "banana": 0x1F34C, "lemon": 0x1F34B, "watermelon": 0x1F349, "grapes": 0x1F347,
    "strawberry": 0x1F353, "cherries": 0x1F352, "peach": 0x1F351, "pineapple": 0x1F34D, "avocado": 0x1F951,
    "carrot": 0x1F955, "corn": 0x1F33D, "mushroom": 0x1F344, "bread": 0x1F35E, "cheese": 0x1F9C0, "burger": 0x1F354,
    "pizza": 0x1F355, "egg": 0x1F95A, "donut": 0x1F369, "cookie": 0x1F36A, "cake": 0x1F382, "candy": 0x1F36C,
    "coffee": 0x2615,
    # vehicles
    "rocket": 0x1F680, "airplane": 0x2708, "car": 0x1F697, "taxi": 0x1F695, "bus": 0x1F68C, "train": 0x1F682,
    "bicycle": 0x1F6B2, "sailboat": 0x26F5, "ship": 0x1F6A2, "helicopter": 0x1F681, "tractor": 0x1F69C, "ufo": 0x1F6F8,
    # things
    "balloon": 0x1F388, "umbrella": 0x2602, "guitar": 0x1F3B8, "drum": 0x1F941, "trumpet": 0x1F3BA, "camera": 0x1F4F7,
    "phone": 0x1F4F1, "lightbulb": 0x1F4A1, "clock": 0x23F0, "book": 0x1F4D5, "key": 0x1F511, "gift": 0x1F381,
    "crown": 0x1F451, "hat": 0x1F3A9, "glasses": 0x1F453, "shoe": 0x1F45F, "football": 0x26BD, "basketball": 0x1F3C0,
    "trophy": 0x1F3C6, "dice": 0x1F3B2, "bomb": 0x1F4A3, "magnet": 0x1F9F2, "hammer": 0x1F528, "diamond": 0x1F48E,
    "bell": 0x1F514, "kite": 0x1FA81, "lantern": 0x1F3EE, "anchor": 0x2693,
    # figures and buildings
    "robot": 0x1F916, "ghost": 0x1F47B, "alien": 0x1F47D, "skull": 0x1F480, "snowman": 0x26C4, "pumpkin": 0x1F383,
    "house": 0x1F3E0, "castle": 0x1F3F0, "tent": 0x26FA,
    # plants, sky and weather
    "tree": 0x1F333, "palm": 0x1F334, "cactus": 0x1F335, "flower": 0x1F33C, "rose": 0x1F339, "tulip": 0x1F337,
    "sunflower": 0x1F33B, "leaf": 0x1F341, "sun": 0x1F31E, "moon": 0x1F319, "cloud": 0x2601, "rainbow": 0x1F308,
    "fire": 0x1F525, "drop": 0x1F4A7, "snowflake": 0x2744, "lightning": 0x26A1, "planet": 0x1FA90, "earth": 0x1F30D,
}

# Colours of shapes and of plain backgrounds.
COLOURS = {
    "red": (0.86, 0.10, 0.13),
    "orange": (1.00, 0.53, 0.05),
    "yellow": (0.98, 0.90, 0.22),
    "green": (0.20, 0.78, 0.25),
    "blue": (0.16, 0.36, 0.95),
    "purple": (0.60, 0.18, 0.82),
    "pink": (1.00, 0.58, 0.78),
    "white": (0.97, 0.97, 0.97),
    "black": (0.07, 0.07, 0.08),
    "gray": (0.50, 0.50, 0.52),
    "brown": (0.48, 0.29, 0.14),
    "turquoise": (0.15, 0.75, 0.74),
}

# Painted places (`paint.py` has a function for each), and how prompts speak of being there.
PLACES = {
    "beach": ("at the beach", "on a beach", "on the beach"),
    "sea": ("over the sea", "at sea", "on the sea", "in front of the sea"),
    "forest": ("in a forest", "in the forest", "in front of a forest"),
    "mountains": ("in the mountains", "over the mountains", "in front of mountains"),
    "desert": ("in the desert", "in a desert", "over the desert"),
    "city": ("in the city", "over the city", "in a city", "in front of a city"),
    "snow": ("in the snow", "on snow", "over the snow"),
    "meadow": ("on a meadow", "in a meadow", "over a meadow"),
    "sky": ("in the sky", "in the blue sky", "against the sky"),
    "night sky": ("in the night sky", "under the night sky", "against the night sky"),
    "sunset": ("at sunset", "in the sunset", "against the sunset"),
    "space": ("in space", "in outer space"),
    "underwater": ("underwater", "under water"),
}
BY_NIGHT = ("beach", "sea", "forest", "mountains", "desert", "city", "snow", "meadow")
