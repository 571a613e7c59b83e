"""Training of one network: what is random is the seed's, a killed training comes back to the bit, trouble is met."""

import dataclasses
import json
import logging
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from spadit.errors import TrainingError
from spadit.trainer import CHECKPOINT_FILES, MAX_LOWERED, SLOWER, TrainSettings, choose_precision, train_network

N_GENES, LENGTH = 12, 10
SETTINGS = TrainSettings(batch_size=5, learning_rate=3e-3, validate_every=4, patience=3, checkpoint_every=6, n_diffusion_steps=100)


class Rows:
    """Genes with one row each: a weight drawn for every entry, an input per gene and a constant, as whole-slide mode has them."""

    def __init__(self, n_genes=N_GENES, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.n_genes = n_genes
        self.x0 = torch.randn(n_genes, LENGTH, generator=generator)
        self.reference = torch.randn(n_genes, 6, generator=generator)
        self.constant = torch.ones(3)

    def draw(self, index, generator):
        x0 = self.x0[index]
        weight = (torch.rand(x0.shape, generator=generator) < 0.6).float()
        return x0, weight, (self.reference[index], self.constant)


class Windows(Rows):
    """Genes with three windows each, as token mode has them: more rows than genes."""

    def draw(self, index, generator):
        rows = index.repeat(3)
        start = int(torch.randint(3, (1,), generator=generator))
        x0 = self.x0[rows].roll(start, dims=1)
        return x0, torch.ones_like(x0), (self.reference[rows], self.constant)


class Net(nn.Module):
    """A small network with two outputs. ``before`` is called at every step in training."""

    def __init__(self, before=None, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(LENGTH + 6 + 1, 32), nn.SiLU(), nn.Linear(32, 2 * LENGTH))
        self.before = before

    def __deepcopy__(self, memo):
        other = Net()
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, x, t, reference, constant):
        if self.before:
            self.before(x)
        assert constant.shape == (3,)
        return self.layers(torch.cat([x, reference, t.unsqueeze(1) / 100], 1)).chunk(2, dim=1)


def vector(network):
    return torch.cat([part.detach().flatten() for part in network.parameters()])


def closeness(samples):
    """A score: minus the error of the network at t = T, from noise that is always the same."""

    def score(network):
        assert not network.training and not torch.is_grad_enabled()
        noise = torch.randn(samples.x0.shape, generator=torch.Generator().manual_seed(5))
        output, _ = network(noise, torch.full((len(noise),), 99), samples.reference, samples.constant)
        return -float(((output - samples.x0) ** 2).mean())

    return score


def train(n_steps=30, seed=0, samples=None, net=None, score=False, **more):
    samples = samples or Rows()
    settings = dataclasses.replace(SETTINGS, **{name: more.pop(name) for name in list(more) if hasattr(SETTINGS, name)})
    return train_network(net or Net(), samples, settings, n_steps, seed, score=closeness(Rows(seed=9)) if score else None, **more)


def assert_same(a, b):
    assert torch.equal(vector(a.network), vector(b.network))
    assert str(a.curve) == str(b.curve) and a.step == b.step and str(a.score) == str(b.score)  # NaN is NaN as text


class Killed(BaseException):
    pass


def killed_at(*steps):
    """A ``report`` that ends the training the first time each of these steps is reported."""
    left = list(steps)

    def report(entry):
        if left and entry["step"] == left[0]:
            left.pop(0)
            raise Killed

    return report


# What is learned


def test_a_tiny_case_is_learned_by_heart():
    samples = Rows(3)
    trained = train(600, samples=samples, batch_size=3, learning_rate=1e-2, share_from_noise=1.0, one_cycle=True)
    assert trained.curve[-1]["train_loss"] < 0.05 < trained.curve[0]["train_loss"]
    with torch.no_grad():
        assert closeness(samples)(trained.network) > -0.05


def test_one_gene_is_enough_and_several_rows_a_gene_are_fine():
    assert train(3, samples=Rows(1)).step == 3
    assert math.isfinite(train(3, samples=Windows()).curve[-1]["train_loss"])


def test_the_network_given_is_trained_and_its_average_returned():
    net = Net()
    trained = train(2, net=net)
    assert trained.network is not net and not trained.network.training
    assert not torch.equal(vector(net), vector(Net())) and not torch.equal(vector(net), vector(trained.network))
    assert trained.step == 2 and math.isnan(trained.score)
    assert all(part.requires_grad and part.device.type == "cpu" for part in trained.network.parameters())


def test_the_average_soon_forgets_the_first_weights():
    far = Net()
    with torch.no_grad():
        for part in far.parameters():
            part.mul_(0).add_(1)
    trained = train(40, net=far, learning_rate=0.0, weight_decay=0.0, ema=0.999)
    assert torch.allclose(vector(trained.network), torch.ones(1))  # nothing moved
    quick, slow = (train(1, net=Net(), learning_rate=1.0, ema=ema) for ema in (0.999, 0.05))
    net = Net()
    train(1, net=net, learning_rate=1.0)
    moved = (vector(net) - vector(Net())).norm()
    for trained, share in ((quick, 0.1), (slow, 0.05)):
        assert (vector(net) - vector(trained.network)).norm() / moved == pytest.approx(share, rel=1e-3)


def test_every_gene_is_drawn_once_a_round():
    seen = []

    class Counting(Rows):
        def draw(self, index, generator):
            seen.extend(index.tolist())
            return super().draw(index, generator)

    train(12, samples=Counting())  # 12 steps of 5 are 5 rounds of 12
    rounds = [seen[i : i + N_GENES] for i in range(0, 60, N_GENES)]
    assert all(sorted(part) == list(range(N_GENES)) for part in rounds) and rounds[0] != rounds[1]


def test_gradients_are_clipped():
    net, free = Net(), Net()
    sizes = []
    for network, clip in ((net, 1e-3), (free, 0.0)):
        train(1, net=network, gradient_clip=clip)
        sizes.append(torch.cat([part.grad.flatten() for part in network.parameters()]).norm())
    assert sizes[0] == pytest.approx(1e-3, rel=1e-3) and sizes[1] > 0.01


# What is random


def test_same_seed_same_weights_other_seed_others():
    def weights(seed):
        torch.manual_seed(int(torch.randint(1000, (1,))))  # the process's own generator has no say
        before = torch.random.get_rng_state()
        trained = train(5, seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())  # and isn't touched
        return vector(trained.network)

    torch.manual_seed(1)
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_looking_and_checkpoints_change_nothing(tmp_path):
    plain = train(20)
    assert torch.equal(vector(plain.network), vector(train(20, checkpoint=tmp_path / "a", validate_every=3, checkpoint_every=1).network))


# Stopping


def test_training_stops_by_patience_and_gives_the_best_weights_back():
    samples, scores, seen = Rows(), iter([0.1, 0.5, 0.3, 0.4, 0.2, 0.9]), []

    def score(network):
        seen.append(vector(network).clone())
        return next(scores)

    trained = train_network(Net(), samples, SETTINGS, 1000, 0, score=score)
    assert [entry["validation_score"] for entry in trained.curve] == [0.1, 0.5, 0.3, 0.4, 0.2]
    assert (trained.step, trained.score) == (8, 0.5)
    assert torch.equal(vector(trained.network), seen[1])


def test_a_score_that_is_never_a_number_is_no_score():
    trained = train_network(Net(), Rows(), SETTINGS, 1000, 0, score=lambda network: float("nan"))
    assert math.isnan(trained.score) and trained.step == 12 and len(trained.curve) == SETTINGS.patience


def test_the_report_tells_where_training_is():
    entries = []
    trained = train(10, report=entries.append)
    assert [entry["step"] for entry in entries] == [4, 8, 10] and {entry["n_steps"] for entry in entries} == {10}
    assert entries[0]["seconds_left"] > 0 and entries[-1]["seconds_left"] == 0
    assert str([{name: entry[name] for name in trained.curve[0]} for entry in entries]) == str(trained.curve)


# Checkpoints


@pytest.mark.parametrize("samples", [Rows, Windows])
@pytest.mark.parametrize(
    "more", [{}, {"score": True, "patience": 9}, {"one_cycle": True, "score": True, "patience": 9}], ids=["plain", "score", "one_cycle"]
)
@pytest.mark.parametrize("steps", [(4,), (12,), (16, 28), (30,), (8, 8, 8)], ids=str)
def test_a_killed_training_comes_back_to_the_bit(tmp_path, samples, more, steps):
    # reports come every 4 steps and checkpoints every 6: these kills are before the first, at one, between two, and at the end
    whole = train(samples=samples(), **more)
    report = killed_at(*steps)
    for _ in steps:
        with pytest.raises(Killed):
            train(samples=samples(), checkpoint=tmp_path / "c", report=report, **more)
    assert_same(whole, train(samples=samples(), checkpoint=tmp_path / "c", report=report, **more))


def test_a_resumed_training_does_not_start_anew(tmp_path):
    with pytest.raises(Killed):
        train(checkpoint=tmp_path, report=killed_at(20))
    steps = []
    train(checkpoint=tmp_path, net=Net(before=steps.append))
    assert len(steps) == 30 - 18


def test_a_finished_training_is_not_done_again(tmp_path):
    def unused(x):
        raise AssertionError("trained again")

    for name, more in {"end": {}, "patience": {"score": True, "learning_rate": 0.3}}.items():
        first = train(200, checkpoint=tmp_path / name, **more)
        assert_same(first, train(200, checkpoint=tmp_path / name, net=Net(before=unused), **more))
    assert first.curve[-1]["step"] < 200


@pytest.mark.parametrize("damage", ["torn", "zeros", "empty", "other_format"])
def test_a_torn_checkpoint_is_ignored(tmp_path, caplog, damage):
    whole = train()
    with pytest.raises(Killed):
        train(checkpoint=tmp_path, report=killed_at(20))
    newest, older = sorted((tmp_path / name for name in CHECKPOINT_FILES), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for files, steps_left in (((newest,), 30 - 12), ((newest, older), 30)):  # the one before, then from the start
        kept, steps = {path: path.read_bytes() for path in (newest, older)}, []
        for path in files:
            content = path.read_bytes()
            path.write_bytes(
                {"torn": content[:-100], "zeros": content[:-100] + bytes(100), "empty": b"", "other_format": b"{}" * 50}[damage]
            )
        with caplog.at_level(logging.WARNING):
            assert_same(whole, train(checkpoint=tmp_path, net=Net(before=steps.append)))
        assert "can't be read" in caplog.text and len(steps) == steps_left
        for path, content in kept.items():
            path.write_bytes(content)


def test_facts_that_were_changed_are_noticed(tmp_path, caplog):
    with pytest.raises(Killed):
        train(checkpoint=tmp_path, report=killed_at(8))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    assert content.count(b'\\"step\\": 6,') == 1
    file.write_bytes(content.replace(b'\\"step\\": 6,', b'\\"step\\": 5,'))
    with caplog.at_level(logging.WARNING):
        assert_same(train(), train(checkpoint=tmp_path))
    assert "checksum doesn't match" in caplog.text


OTHERS = {
    "seed": {"seed": 1},
    "steps": {"n_steps": 31},
    "settings": {"learning_rate": 1e-4},
    "genes": {"samples": Rows(N_GENES + 1)},
    "values": {"samples": Rows(seed=1)},  # as many genes, but others: their training may have seen what is hidden here
    "start": {"net": Net(seed=1)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_foreign_checkpoint_is_ignored(tmp_path, caplog, other):
    more = OTHERS[other]
    with pytest.raises(Killed):
        train(checkpoint=tmp_path, report=killed_at(20), **more)
    with caplog.at_level(logging.WARNING):
        assert_same(train(), train(checkpoint=tmp_path))
    assert "of another training" in caplog.text


def test_nothing_half_written_is_left_when_the_disk_is_full(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        train(checkpoint=tmp_path, report=killed_at(8))
    before = (tmp_path / CHECKPOINT_FILES[0]).read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("spadit.trainer.save_file", full)
    with pytest.raises(OSError, match="No space"):
        train(checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILES[0]]
    assert (tmp_path / CHECKPOINT_FILES[0]).read_bytes() == before


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    half = tmp_path / f".{CHECKPOINT_FILES[0]}.abc" / CHECKPOINT_FILES[0]
    half.parent.mkdir()
    half.write_bytes(b"half")
    train(2, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILES[0]]


@pytest.mark.fault
def test_killed_at_20_random_moments_it_loses_no_more_than_the_interval_and_ends_the_same(tmp_path):
    """SIGKILL to the process, so that nothing of it can tidy up: between steps, in a step, while a checkpoint is written. From an
    interpreter of its own: a process with threads, as pytest's is after other tests, can't be forked safely."""
    paths = os.pathsep.join(str(Path(__file__).parents[2] / name) for name in ("bin", "tests"))
    done = subprocess.run(
        [sys.executable, __file__, tmp_path], env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split()[-1] == "killed", done.stdout + done.stderr


def kill_at_20_random_moments(tmp_path):
    n_steps, interval, rng = 420, 6, random.Random(0)
    more = {"score": True, "patience": 10_000}
    whole = train(n_steps, **more)
    done = multiprocessing.get_context("fork").Value("q", 0, lock=False)  # steps in this life

    def count(x):
        done.value += 1

    def step_of_checkpoint():
        steps = [0]
        for name in CHECKPOINT_FILES:
            if (tmp_path / name).exists():
                with safe_open(tmp_path / name, framework="pt") as file:
                    steps.append(json.loads(file.metadata()["training"])["step"])
        return max(steps)

    reached, kills = 0, 0
    for target in sorted(rng.sample(range(1, n_steps - 5), 20)):
        begun = step_of_checkpoint()
        assert reached - begun <= interval + 1  # the step that was being made counts, too
        if target <= begun:
            target = begun + 1
        done.value = 0
        child = os.fork()
        if child == 0:
            try:
                train(n_steps, net=Net(before=count), checkpoint=tmp_path, **more)
            finally:
                os._exit(0)  # whatever came: this copy of pytest must not go on
        limit = time.monotonic() + 30
        while begun + done.value < target and time.monotonic() < limit:
            time.sleep(0.0002)
        assert begun + done.value > begun, "the training stands still"
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        reached = begun + done.value
    assert kills >= 18  # one or two may have come to the end before
    assert_same(whole, train(n_steps, checkpoint=tmp_path, **more))


def test_a_polite_end_writes_a_checkpoint_first(tmp_path):
    whole, steps = train(), []
    with pytest.raises(SystemExit) as end:
        train(checkpoint=tmp_path, report=lambda entry: entry["step"] == 16 and os.kill(os.getpid(), signal.SIGTERM))
    assert end.value.code == 143
    assert_same(whole, train(checkpoint=tmp_path, net=Net(before=steps.append)))
    assert len(steps) == 30 - 16


# Trouble


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training_and_its_batch_is_named(value):
    def spoil(x):
        spoil.calls += 1
        if spoil.calls >= 8:
            x[0, 0] = value

    spoil.calls = 0
    samples = Rows()
    samples.names = [f"Gene{i}" for i in range(N_GENES)]
    with pytest.raises(TrainingError, match=r"no longer a number at step \d+ \(its batch: genes Gene\d+, .*tried 3 times"):
        train(net=Net(before=spoil), samples=samples)
    samples.x0[7, 3] = value
    with pytest.raises(TrainingError, match=r"what the network is given isn't \(its batch: genes Gene7\)"):
        train(samples=samples)
    samples = Rows()
    samples.reference[2, 0] = value
    with pytest.raises(TrainingError, match=r"what the network is given isn't \(its batch: genes number 2\)"):
        train(samples=samples)


def spoils(*calls):
    """The network's input is spoiled at these calls of it."""

    def before(x):
        before.calls += 1
        if before.calls in calls:
            x[0, 0] = float("nan")

    before.calls = 0
    return before


@pytest.mark.parametrize("score", [False, True])
def test_a_loss_that_diverges_goes_on_from_the_last_good_state_with_a_lower_rate(tmp_path, caplog, score):
    # spoiled in the 8th step, seen at the 8th, 2 after the checkpoint; again in the 10th call, the 8th step once more
    with caplog.at_level(logging.WARNING):
        trained = train(net=Net(before=spoils(8, 10)), checkpoint=tmp_path, score=score, patience=9)
    assert trained.lowered == [8, 8] and trained.curve[-1]["step"] == 30
    assert all(math.isfinite(entry["train_loss"]) for entry in trained.curve)
    assert caplog.text.count("goes on from step 6 with a lower learning rate") == 2
    plain = train(score=score, patience=9)
    assert plain.lowered == [] and not torch.equal(vector(plain.network), vector(trained.network))
    # without a folder for checkpoints it is the same, from memory
    assert_same(trained, train(net=Net(before=spoils(8, 10)), score=score, patience=9))


def test_the_rate_is_lowered_by_its_factor(monkeypatch):
    seen, made = [], torch.optim.AdamW

    def optimiser(parameters, lr, **more):
        seen.append(lr)
        return made(parameters, lr=lr, **more)

    monkeypatch.setattr(torch.optim, "AdamW", optimiser)
    with pytest.raises(TrainingError, match=f"tried {MAX_LOWERED} times"):
        train(net=Net(before=spoils(*range(1, 100))))
    assert seen == pytest.approx([SETTINGS.learning_rate * SLOWER**i for i in range(MAX_LOWERED + 1)])


def test_a_training_that_was_slowed_down_and_killed_comes_back_to_the_bit(tmp_path):
    whole = train(net=Net(before=spoils(8)))
    with pytest.raises(Killed):
        train(net=Net(before=spoils(8)), checkpoint=tmp_path, report=killed_at(16))
    again = train(checkpoint=tmp_path)
    assert again.lowered == [8]
    assert_same(whole, again)


def test_a_loss_that_runs_away_without_becoming_nan_is_met(caplog):
    class Steep(Net):
        """Any step of the plain rate throws it far off; small ones don't."""

        def forward(self, x, t, reference, constant):
            output, fraction = super().forward(x, t, reference, constant)
            return output * (1 + 1e4 * (self.layers[2].bias.detach() - self.start).norm()), fraction

        def __deepcopy__(self, memo):
            other = Steep()
            other.load_state_dict(self.state_dict())
            other.start = self.start
            return other

    net = Steep()
    net.start = net.layers[2].bias.detach().clone()
    with pytest.raises(TrainingError, match="is far above the .* at first"):
        train(net=net, learning_rate=1e-2)


def test_ordinary_trainings_are_not_taken_for_runaways():
    for more in ({}, {"learning_rate": 3e-2}, {"one_cycle": True, "learning_rate": 1e-2}, {"samples": Windows()}):
        assert train(120, **more).lowered == []


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing_beyond_rounding(threads):
    one = train(20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        many = train(20)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(vector(one.network), vector(many.network), rtol=1e-4, atol=1e-5)


def test_weights_that_are_no_numbers_do_not_pass_for_a_result():
    net = Net()
    net.layers[0].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="no longer a number at step 1"):
        train(1, net=net)


def fails_once(at, sizes):
    """The device's memory is full at this call of the network, whenever more than 3 rows come from then on."""

    def before(x):
        sizes.append(len(x))
        if len(sizes) >= at and len(x) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    return before


def test_a_full_gpu_halves_the_batch_and_goes_on(caplog):
    sizes = []
    with caplog.at_level(logging.WARNING):
        trained = train(6, batch_size=6, net=Net(before=fails_once(3, sizes)))
    assert sizes == [6, 6, 6] + 4 * [3, 3] and trained.step == 6
    assert "a batch of 6 genes now goes through the network in 2 parts" in caplog.text


def test_parts_of_a_batch_add_up_to_it():
    class Fixed(Rows):
        """Draws nothing, so that parts see what the whole batch sees."""

        def draw(self, index, generator):
            x0 = self.x0[index]
            return x0, (x0 > -0.5).float(), (self.reference[index], self.constant)

    gradients = []
    for before in (None, fails_once(1, [])):
        net = Net(before)
        with torch.no_grad():
            for part in net.layers[2].parameters():
                part.zero_()  # the output doesn't depend on the noise, whose draws differ; the gradient of the last bias is known
        train(1, samples=Fixed(), net=net, batch_size=N_GENES, gradient_clip=0.0)
        gradients.append(net.layers[2].bias.grad[:LENGTH])
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].abs().max() > 0.01


def test_not_even_one_gene_fits_into_the_gpu():
    def full(x):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="doesn't hold 1 genes at a time"):
        train(net=Net(before=full))


def test_nothing_to_train():
    with pytest.raises(TrainingError, match="nothing to train: 0 steps on 12 genes"):
        train(0)


# Precision and devices


def test_precision_follows_the_device(monkeypatch):
    assert choose_precision("auto", "cpu") == "32-true" and choose_precision("fp16", "cuda") == "16-mixed"
    for capability, precision in (((9, 0), "bf16-mixed"), ((7, 5), "16-mixed")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert choose_precision("auto", "cuda") == precision
    with pytest.raises(ValueError, match="Unknown precision '64'"):
        choose_precision("64", "cpu")


def test_half_precision_trains_nearly_the_same():
    dtypes = []
    net = Net(before=lambda x: dtypes.append(torch.is_autocast_enabled("cpu")))
    exact, half = train(40), train(40, net=net, precision="bf16")
    assert any(dtypes) and vector(half.network).dtype == torch.float32
    assert not torch.equal(vector(exact.network), vector(half.network))
    assert half.curve[-1]["train_loss"] == pytest.approx(exact.curve[-1]["train_loss"], rel=0.05)


def test_two_devices_share_the_work(tmp_path):
    def weights(name):
        return train(20, score=True, patience=9, checkpoint=tmp_path / name, n_devices=2)

    one, two = train(20, score=True, patience=9), weights("a")
    assert two.step and len(two.curve) == 5
    assert two.curve[-1]["train_loss"] < two.curve[0]["train_loss"] * 1.2 and abs(two.score - one.score) < 0.2
    assert_same(two, weights("b"))
    assert_same(two, weights("a"))


if __name__ == "__main__":
    kill_at_20_random_moments(Path(sys.argv[1]))
    print("killed")
