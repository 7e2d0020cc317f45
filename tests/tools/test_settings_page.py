import re

from emi_live.config import LiveConfig, settings_of
from tools.settings_page import PAGE, render


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python tools/settings_page.py"


def test_every_setting_can_be_linked_to() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', render())
    assert len(anchors) == len(set(anchors))
    assert {setting.name for setting in settings_of(LiveConfig)} <= set(anchors)
