"""The book's style, as checks of proselint, beside those that proselint brings along.

`{}` in a message is what was found. Where a check knows a better form, that comes first.
"""

import re
from collections.abc import Iterator

from proselint.checks import __register__ as brought
from proselint.registry.checks import Check, CheckResult, Padding, types
from proselint.registry.checks.engine import Fancy, RegexOptions

from tools.prose.text import GAP

LONGEST = 45  # words in a sentence; a formula is one

# Of proselint's own: what the book does otherwise, and what takes ranges, labels such as (c), and
# "these very values" for something else.
UNUSED = (
    "dates_times.dates.dash_and_from",
    "misc.but",
    "restricted",
    "typography.symbols.copyright",
    "typography.symbols.curly_quotes",
    "weasel_words.very",
)

# What proselint would have otherwise, and the book means as it stands; in small letters.
VOCABULARY = {"for ever", "least possible", "on the spot", "saliency"}

# What a reader who finds it hard need not hear.
EASY = (
    r"as everyone knows",
    r"clearly",
    r"eas(?:y|ily) (?:to )?(?:check|derive|prove|see|show|understand|verify|seen|shown)\w*",
    r"just (?:add|call|do|look|need|replace|take|try|use|write)s?",
    r"needless to say",
    r"obvious(?:ly)?",
    r"of course",
    r"simply",
    r"straightforward(?:ly)?",
    r"trivially|(?:is|are) trivial",
)
HYPE = (
    r"amazing(?:ly)?",
    r"beautiful(?:ly)?",
    r"blazing(?:ly)?",
    r"crucial(?:ly)?",
    r"cutting[- ]edge",
    r"dramatic(?:ally)?",
    r"elegant(?:ly)?",
    r"game[- ]chang\w+",
    r"groundbreaking",
    r"incredibl[ey]",
    r"magic(?:al|ally)?",
    r"powerful(?:ly)?",
    r"remarkabl[ey]",
    r"revolution\w*",
    r"seamless(?:ly)?",
    r"state[- ]of[- ]the[- ]art",
    r"stunning(?:ly)?",
    r"unprecedented",
)
FILLER = (
    r"(?:actually|basically|essentially|interestingly|really)",
    r"as a matter of fact",
    r"in other words",
    r"it (?:is|should be) (?:important to note|interesting to note|noted|worth (?:not|mention)ing)",
    r"(?<!\w )note that",
    r"the fact that",
    # Not "the very values".
    r"(?<!the )(?<!these )(?<!this )(?<!that )very",
    r"when it comes to",
)
CONTRACTIONS = (r"\w+n['’]t", r"(?:it|let|that|there)['’]s", r"\w+['’](?:ll|re|ve)")
PLAIN = {
    r"delv(?:e|es|ed|ing) into": "look at",
    r"due to the fact that": "because",
    r"e\.g\.": "for example",
    r"etc\.?": "and so on",
    r"i\.e\.": "that is",
    r"in order to": "to",
    r"leverag(?:e|es|ed|ing)": "use",
    r"prior to": "before",
    r"utili[sz](?:e|es|ed|ing|ation)": "use",
    r"vs\.?": "against",
}
# British, with -ize where Oxford's dictionary has it.
SPELLING = {
    r"\w*(?:character|emphas|general|initial|maxim|minim|normal|optim|organ|parametr|penal"
    r"|quant|random|recogn|regular|stabil|standard|summar|synchron|visual)"
    r"is(?:e[drs]?|ers|ing|able|ations?)": "-ize",
    r"(?:behavi|col|fav|hon|lab|neighb|tum)or(?:s|ed|ing|hood|al)?": "-our",
    r"(?:an|cat|par)alyz(?:e[drs]?|ing)": "-yse",
    r"(?:cancel|label|level|model|travel)(?:ed|ing)": "-lled, -lling",
    r"center(?:s|ed|ing)?": "centre",
    r"(?:centi|kilo|milli|micro|nano)?meters?": "metre",
    r"artifacts?": "artefact",
    r"catalogs?": "catalogue",
    r"gray(?:er|scale)?": "grey",
    r"per cent": "percent",
    r"toward": "towards",
}
CASE = "(?-i:"  # The classes BatchNorm and LayerNorm keep their names.
TERMS = {
    r"back[- ]propagat\w+": "backpropagat…",
    rf"batch[- ]norm|{CASE}[Bb]atchnorm)": "batch normalization",
    r"cross entropy": "cross-entropy",
    r"data-?sets?": "data set",
    r"hyper[- ]parameters?": "hyperparameter",
    rf"layer[- ]norm|{CASE}[Ll]ayernorm)": "layer normalization",
    r"mini ?batch(?:es)?": "mini-batch",
    r"non[- ]linear\w*": "nonlinear…",
    r"scale invariant": "scale-invariant",
    r"warmup": "warm-up",
}
# Not in what begins with a name, such as pytorch-image-models, nor in "pytorch 126525", an issue.
NAMES = {
    r"github|Github": "GitHub",
    r"imagenet|Imagenet": "ImageNet",
    r"jupyter": "Jupyter",
    r"mnist|Mnist": "MNIST",
    r"numpy|Numpy": "NumPy",
    r"python": "Python",
    r"pytorch|Pytorch": "PyTorch",
    r"relu(?!\()|Relu|ReLu|RELU": "ReLU",
    r"resnet|Resnet": "ResNet",
    r"tensorflow|Tensorflow": "TensorFlow",
}
# What a heading writes with a capital letter, beside its first word, what is in capitals, and the
# book's title.
PROPER = (
    r"Adam|Algorithm|Caffe|Cholesky|Gaussian|Hermite|Jacobian|Keras|Monte Carlo"
    r"|Newton|None|Python|Schulz|Sylvester|Triton"
)

FANCY = Fancy()  # also knows what stands before and after
CASED = Fancy(RegexOptions(case_insensitive=False))


def too_long(text: str, check: Check) -> Iterator[CheckResult]:
    """Sentences of more than `LONGEST` words."""
    for sentence in re.finditer(rf"(?s)\S.*?(?:[.?!][\"')\]]*(?=\n|\s+\W*[A-Z{GAP}])|$)", text):
        words = len(re.findall(rf"\w[\w'’.,/-]*|{GAP}", sentence[0]))
        if words > LONGEST:
            yield CheckResult(check.path, check.message.format(words), sentence.span(), None)


def pattern(name: str, message: str, expression: str) -> Check:
    return Check(types.ExistenceSimple(expression), CASED, name, message)


def words(name: str, message: str, items: tuple[str, ...]) -> Check:
    return Check(types.ExistenceSimple(rf"\b(?:{'|'.join(items)})\b"), FANCY, name, message)


def forms(
    name: str, message: str, items: dict[str, str], engine: Fancy = FANCY, end: str = r"(?!\w)"
) -> Check:
    better = {rf"\b(?:{item}){end}": form for item, form in items.items()}
    return Check(types.PreferredForms(better, Padding.RAW), engine, name, message)


HOUSE = (
    words("house.easy", "'{}': what is easy for one reader is hard for another", EASY),
    words("house.hype", "'{}': say what it does, with a number", HYPE),
    words("house.filler", "'{}': the sentence says the same without", FILLER),
    words("house.contractions", "'{}': write it out", CONTRACTIONS),
    forms("house.plain", "write '{}' for '{}'", PLAIN),
    forms("house.spelling", "the book spells it '{}', not '{}'", SPELLING),
    forms("house.terms", "the book's word is '{}', not '{}'", TERMS),
    forms("house.names", "write '{}', not '{}'", NAMES, CASED, r"(?![\w/-]| \d)"),
    pattern("house.dashes", "'{}': a comma, a colon or two sentences", r"—|\S (?:–|--) "),
    pattern("house.exclamations", "'{}': a full stop will do", r"\w!"),
)
EVERYWHERE = HOUSE + tuple(
    check for check in brought if not any(check.matches_partial(path) for path in UNUSED)
)
SENTENCES = (
    Check(too_long, FANCY, "house.long", f"a sentence of {{}} words; {LONGEST} are enough"),
)
HEADINGS = (
    pattern(
        "house.headings",
        "'{}': in a heading only the first word and names have a capital letter",
        rf"(?<=[\w,;{GAP}'’)] )(?<!\nBatch )(?!(?:{PROPER})\b)[A-Z][a-z]+\b",
    ),
)
LINES = (
    pattern(
        "house.lines",
        "'{}': the next sentence has a line of its own",
        # Not a number or a word or two that the line begins with.
        rf"\S+ +\S+ +\S*(?<!\bFig)(?<!\bEq)(?<!\bet al)[.?!][\"')]* +(?=[A-Z{GAP}])",
    ),
)
