"""Which bundles a server serves, and under which names."""

import pytest

from controller.config import load
from controller.errors import ConfigError
from policies.settings import ServeConfig


@pytest.mark.parametrize(
    ("words", "bundles"),
    [
        ([], {"default": "runs/demo/bundles"}),
        (["bundle=b"], {"default": "b"}),
        (["policies.arm=a", "policies.leg=l"], {"arm": "a", "leg": "l"}),
        (["bundle=b", "policies.arm=a"], {"default": "b", "arm": "a"}),
        (["policies.arm=7"], {"arm": "7"}),
    ],
)
def test_bundles_by_name(words, bundles):
    config = load(ServeConfig, None, words)
    assert config.bundles == bundles
    assert list(config.bundles) == list(bundles)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["bundle=null"], "bundle is null and policies is empty"),
        (["bundle=b", "policies.default=a"], "default is the name of bundle"),
        (["policies.a b=c"], "policies"),
        (["drain_s=-1"], "drain_s"),
    ],
)
def test_bundles_that_make_no_sense(words, match):
    with pytest.raises(ConfigError, match=match):
        load(ServeConfig, None, words)
