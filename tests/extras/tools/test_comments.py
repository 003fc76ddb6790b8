"""The comments of args.yaml."""

from extras.tools.comments import commented
from utils.settings.config import FILE
from utils.settings.sections import KEYS


def test_the_comments_of_args_yaml_are_the_help_of_the_fields():
    text = FILE.read_text(encoding="utf-8")
    assert commented(text) == text, "python -m extras.tools.comments writes the comments"
    assert commented(text.replace(KEYS["epochs"].help, "another text")) == text
