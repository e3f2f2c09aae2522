"""Which runs a plan has."""

from pathlib import Path

import pytest

from controller.config import load
from controller.errors import ConfigError
from policies.reproduction.plan import expand, grouped, paper_updates
from policies.reproduction.settings import ReproduceConfig, Variant
from tests.policies.reproduction.made import plan

ROOT = Path(__file__).parents[3]
STEPS = Variant(("chain.steps=2",), ("diffusion_ql",), ("kitchen-complete-v0",))
WIDE = Variant(("network.hidden=[9]",), ("consistency_ac", "iql"))


def test_the_first_seed_of_everything_comes_first_and_variants_last():
    cells = expand(plan(variants={"wide": WIDE}))
    base = [
        f"{dataset}/{algorithm}/seed_{seed}"
        for seed in (0, 1)
        for dataset in ("hopper-medium-expert-regen", "kitchen-complete-v0")
        for algorithm in ("consistency_bc", "consistency_ac")
    ]
    wide = [
        f"{dataset}/consistency_ac-wide/seed_{seed}"
        for seed in (0, 1)
        for dataset in ("hopper-medium-expert-regen", "kitchen-complete-v0")
    ]
    assert [cell.name for cell in cells] == base + wide


def test_a_variant_is_trained_where_it_says():
    cells = expand(plan(algorithms=("diffusion_ql",), variants={"two": STEPS}, seeds=(3,)))
    assert [cell.name for cell in cells if cell.variant] == [
        "kitchen-complete-v0/diffusion_ql-two/seed_3"
    ]
    assert cells[-1].words == ("optimiser.steps=30", "log_every=10", "chain.steps=2")
    assert cells[-1].store("runs") == Path("runs/kitchen-complete-v0/diffusion_ql-two/seed_3")


def test_only_the_papers_algorithms_have_its_preset_and_only_the_others_the_ladders_words():
    cells = expand(plan(algorithms=("diffusion_bc", "iql"), seeds=(0,), ladder=("iql.beta=1",)))
    about = {(cell.algorithm, cell.preset, cell.words[2:]) for cell in cells}
    assert about == {("diffusion_bc", "released", ()), ("iql", "own", ("iql.beta=1",))}


def test_settings_that_change_nothing_of_the_experiment_are_left_out_of_its_words():
    words = ("optimiser.steps=30", "log_every=10", "optimiser.compile=true", "tensorboard=false")
    cell = expand(plan(settings=words))[0]
    assert cell.settings == "optimiser.steps=30"
    assert cell.words == words


def test_a_cell_resolves_to_the_settings_of_its_training():
    cell = expand(plan(variants={"wide": WIDE}))[-1]
    config = cell.resolve("kept/kitchen-complete-v0.hdf5", "kitchen-complete")
    assert config.algorithm == "consistency_ac"
    assert config.preset == "released"
    assert config.task == "kitchen-complete"
    assert config.optimiser.steps == 30
    assert config.network.hidden == (9,)
    # Of the preset for this task.
    assert config.value.q_norm
    assert config.improve.eta == 0.5
    assert cell.command("a.hdf5", "t") == [
        "algorithm=consistency_ac", "preset=released", "data=a.hdf5", "task=t",
        "optimiser.steps=30", "log_every=10", "network.hidden=[9]",
    ]  # fmt: skip


def test_a_word_that_is_no_setting_is_told():
    cell = expand(plan(settings=("loss.wieghting=none",)))[0]
    with pytest.raises(ConfigError, match=r"did you mean weighting"):
        cell.resolve()


def test_groups_differ_in_the_seed_alone():
    groups = grouped(expand(plan()))
    assert [[cell.seed for cell in group] for group in groups] == [[0, 1]] * 4
    assert len({cell.group for group in groups for cell in group}) == 4


@pytest.mark.parametrize(
    ("dataset", "algorithm", "updates"),
    [
        ("hopper-medium-expert-regen", "consistency_ac", 2_000_000),
        ("kitchen-complete-v0", "consistency_ac", 1_500_000),
        ("kitchen-complete-v0", "diffusion_ql", 250_000),
        ("pen-cloned-v1", "consistency_bc", 500_000),
        ("hopper-medium-v2", "iql", None),
        ("door-human-v1", "consistency_bc", None),
    ],
)
def test_updates_of_the_papers_runs(dataset, algorithm, updates):
    assert paper_updates(dataset, algorithm) == updates


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seeds=[1, 1]"], "seeds [1, 1] repeat"),
        (["datasets=[a/b.hdf5]"], "the path of a file goes into sources"),
        (["settings=[seed=3]"], "seed is decided by the plan itself"),
        (["settings=[steps]"], "expected key=value, got 'steps'"),
        (["variants={Big-One: {settings: [a=1], algorithms: [bc]}}"], "expected a name of a-z"),
        (["variants={a: {settings: [out=b], algorithms: [bc]}}"], "out is decided"),
        (["algorithms=[consistency_bd]"], "did you mean consistency_bc"),
        (["only=table"], "did you mean tables"),
        (["datasets=[]"], "1 entries or more"),
    ],
)
def test_a_fault_in_a_plan_is_told(words, told):
    with pytest.raises(ConfigError) as caught:
        load(ReproduceConfig, None, words)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["first", "paper"])
def test_every_cell_of_the_shipped_plans_resolves(name):
    config = load(ReproduceConfig, ROOT / f"configs/reproduce/{name}.yaml")
    for group in grouped(expand(config)):
        resolved = group[0].resolve()
        if name == "first":
            assert resolved.optimiser.steps == 50_000
        elif group[0].preset == "released":
            assert resolved.optimiser.steps == paper_updates(
                *group[0].group[:1], group[0].algorithm
            )
        else:
            assert resolved.optimiser.steps == 1_000_000


def test_the_full_plan_has_the_papers_tasks_and_ablations():
    config = load(ReproduceConfig, ROOT / "configs/reproduce/paper.yaml")
    assert len(config.seeds) == 5
    cells = [cell for cell in expand(config) if cell.dataset == "hopper-medium-expert-regen"]
    calls = {
        (cell.algorithm, cell.resolve().sampler.steps or cell.resolve().chain.steps)
        for cell in cells
        if cell.seed == 0 and cell.algorithm in ("consistency_ac", "diffusion_ql")
    }
    assert calls == {
        (a, n) for a in ("consistency_ac", "diffusion_ql") for n in (1, 2, 5, 10, 20, 50)
    }
    weighting = {
        cell.variant: (cell.resolve().loss.weighting, cell.resolve().network.kind)
        for cell in cells
        if cell.algorithm == "consistency_ac" and cell.variant in ("", "unscaled", "ln_resnet")
    }
    assert weighting == {
        "": ("inverse_step", "mlp"), "unscaled": ("none", "mlp"),
        "ln_resnet": ("inverse_step", "ln_resnet"),
    }  # fmt: skip
