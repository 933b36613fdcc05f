"""The label sac: networks read from hostile files, values by hand and against Stable-Baselines3, CPL's score."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import pickle
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from entropilot.cli import control as cli_control  # noqa: E402
from entropilot.control.segments import critic as module  # noqa: E402
from entropilot.control.segments.critic import critic_scores, load_critic  # noqa: E402
from entropilot.control.segments.labels import scores  # noqa: E402
from entropilot.control.segments.segments import save  # noqa: E402
from entropilot.errors import UserError  # noqa: E402


def weights(states=35, actions=4, pi=(6,), qf=(5, 3), critics=2, seed=0) -> dict:
    """A state dict as sb3 names it, in float64 so that nothing is rounded."""
    draw, found = torch.Generator().manual_seed(seed), {}

    def linear(name, inputs, outputs):
        found[f"{name}.weight"] = torch.randn(outputs, inputs, generator=draw, dtype=torch.float64) * 0.5
        found[f"{name}.bias"] = torch.randn(outputs, generator=draw, dtype=torch.float64) * 0.5

    for i, (a, b) in enumerate(zip((states, *pi), pi, strict=False)):
        linear(f"actor.latent_pi.{2 * i}", a, b)
    for head in ("mu", "log_std"):
        linear(f"actor.{head}", (states, *pi)[-1], actions)
    for kind in ("critic", "critic_target"):
        for k in range(critics):
            for i, (a, b) in enumerate(zip((states + actions, *qf), (*qf, 1), strict=True)):
                linear(f"{kind}.qf{k}.{2 * i}", a, b)
    return found


@pytest.fixture
def model(tmp_path):
    """Write a zip as SAC.save does; content replaces what torch.save makes of the state."""

    def make(state=None, data=None, content=None, name="model.zip", policy="policy.pth"):
        buffer = io.BytesIO()
        torch.save(weights() if state is None else state, buffer)
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("data", json.dumps({"policy_kwargs": {}}) if data is None else data)
            file.writestr(policy, buffer.getvalue() if content is None else content)
        return tmp_path / name

    return make


# --- values --------------------------------------------------------------------------------------------------

TINY = {
    "actor.latent_pi.0.weight": [[1.0, -2.0], [0.5, 1.0]],
    "actor.latent_pi.0.bias": [0.25, -0.5],
    "actor.mu.weight": [[0.5, -1.0]],
    "actor.mu.bias": [0.125],
    "actor.log_std.weight": [[0.25, 0.5]],
    "actor.log_std.bias": [-1.0],
    "critic.qf0.0.weight": [[1.0, -1.0, 2.0]],
    "critic.qf0.0.bias": [0.5],
    "critic.qf0.2.weight": [[3.0]],
    "critic.qf0.2.bias": [1.0],
    "critic.qf1.0.weight": [[0.5, 1.0, -3.0]],
    "critic.qf1.0.bias": [2.0],
}
STATES = [[0.5, -0.25], [-1.0, 2.0]]


def by_hand(state, noise):
    """Q1, Q2 and log π of TINY, number by number."""
    x, y = state
    h = max(x - 2 * y + 0.25, 0.0), max(0.5 * x + y - 0.5, 0.0)
    mean, log_std = 0.5 * h[0] - h[1] + 0.125, 0.25 * h[0] + 0.5 * h[1] - 1
    a = math.tanh(mean + math.exp(log_std) * noise)
    logp = -(noise**2) / 2 - log_std - math.log(2 * math.pi) / 2 - math.log(1 - a * a + 1e-6)
    return 3 * max(x - y + 2 * a + 0.5, 0.0) + 1, 0.5 * x + y - 3 * a + 2, logp


@pytest.mark.parametrize(
    ("options", "of"),
    [
        ({}, lambda q1, q2, logp: (q1 + q2) / 2),
        ({"ensemble": "min"}, lambda q1, q2, logp: min(q1, q2)),
        ({"alpha": 0.3, "ensemble": "min"}, lambda q1, q2, logp: min(q1, q2) - 0.3 * logp),
    ],
)
def test_values_by_hand(model, options, of):
    critic = load_critic(model({name: torch.tensor(v, dtype=torch.float64) for name, v in TINY.items()}))
    assert critic.sizes == (2, 1)
    noise = np.random.default_rng(3).standard_normal((2, 7, 1))
    wanted = [
        sum(of(*by_hand(s, e)) for e in draws[:, 0]) / 7 for s, draws in zip(STATES, noise, strict=True)
    ]
    # Both critics are the lesser one somewhere, and a sample is cut off by a ReLU: else the test could not tell.
    q1, q2 = np.array([by_hand(s, e[0])[:2] for s, n in zip(STATES, noise, strict=True) for e in n]).T
    assert (q1 < q2).any() and (q2 < q1).any() and (q1 == 1).any()
    assert np.allclose(critic.value(np.array(STATES), 7, 3, **options), wanted, rtol=1e-9, atol=0)


def test_the_spread_is_clamped_and_the_action_squashed(model):
    state = {name: torch.tensor(v, dtype=torch.float64) for name, v in TINY.items()}
    state["actor.log_std.weight"] = torch.tensor([[100.0, -1000.0]], dtype=torch.float64)
    critic = load_critic(model(state))
    # The hidden units are (1.25, 0) and (0, 1): log std 124 and −1001 before the clamp; means 0.75 and −0.875.
    mean, log_std = critic.gaussian(np.array(STATES))
    assert mean.tolist() == [[0.75], [-0.875]] and log_std.tolist() == [[2.0], [-20.0]]
    # Next to no spread: a = tanh(−0.875), Q1 = max(−1 − 2 + 2a + 0.5, 0)·3 + 1 = 1, Q2 = −0.5 + 2 − 3a + 2.
    assert critic.value(np.array(STATES[1:]), 2, ensemble="min")[0] == 1.0
    both = critic.value(np.array(STATES[1:]), 2)[0]
    assert both == pytest.approx((1 + 3.5 - 3 * math.tanh(-0.875)) / 2, rel=1e-7)


def twin(state, states, noise):
    """All samples at once, by torch's own layers in float64: Q of every critic, (critics, n, samples)."""
    linear, relu = torch.nn.functional.linear, torch.relu

    def net(prefix, x, count, end=False):
        for i in range(count):
            x = linear(x, state[f"{prefix}.{2 * i}.weight"], state[f"{prefix}.{2 * i}.bias"])
            x = x if end and i == count - 1 else relu(x)
        return x

    s = torch.as_tensor(states, dtype=torch.float64)
    h = net("actor.latent_pi", s, 1)
    mean, spread = (
        linear(h, state[f"actor.{n}.weight"], state[f"actor.{n}.bias"]) for n in ("mu", "log_std")
    )
    a = torch.tanh(mean[:, None] + spread.clamp(-20, 2).exp()[:, None] * torch.as_tensor(noise))
    both = torch.cat([s[:, None].expand(-1, a.shape[1], -1), a], -1)
    return torch.stack([net(f"critic.qf{k}", both, 3, end=True)[..., 0] for k in range(3)]).numpy()


def test_many_states_are_worked_in_parts(model):
    state = weights(critics=3)
    states = np.random.default_rng(1).normal(size=(150, 35)).astype(np.float32)
    q = twin(state, states, np.random.default_rng(9).standard_normal((150, 64, 4)))
    critic = load_critic(model(state))
    assert np.allclose(critic.value(states, seed=9), q.mean(0).mean(1), rtol=1e-9, atol=1e-12)
    assert np.allclose(critic.value(states, 64, 9, "min"), q.min(0).mean(1), rtol=1e-9, atol=1e-12)
    assert critic.value(states[:0]).shape == (0,)


def test_networks_without_hidden_layers(model):
    critic = load_critic(model(weights(pi=(), qf=())))
    assert (
        critic.sizes == (35, 4)
        and critic.hidden == []
        and [len(layers) for layers in critic.critics] == [1, 1]
    )


# --- the score -----------------------------------------------------------------------------------------------


def plain(states=35, actions=4):
    """V(s) = 2·s_0 − s_1 + 0.5, whatever the action."""
    state = weights(states, actions, pi=(), qf=(), critics=1)
    state["critic.qf0.0.weight"] = torch.zeros(1, states + actions, dtype=torch.float64)
    state["critic.qf0.0.weight"][0, :2] = torch.tensor([2.0, -1.0])
    state["critic.qf0.0.bias"] = torch.tensor([0.5], dtype=torch.float64)
    return state


def test_scores_by_hand(model, make_segments):
    segments = make_segments(2, 3)
    segments.states[:, :, :2] = [[[1, 2], [9, 9], [4, 0]], [[0, 1], [3, 5], [9, 9]]]
    segments.rewards = np.array([[1.0, 2.0, 100.0], [4.0, 100.0, np.nan]], np.float32)
    segments.lengths = np.array([3, 2])
    segments.states[1, 2] = np.nan
    critic = load_critic(model(plain()))
    # 1 + 2 + (2·4 − 0) − (2·1 − 2) and, two steps long, 4 + (2·3 − 5) − (0 − 1): the last reward is V's.
    assert critic_scores(segments, critic) == pytest.approx([11.0, 6.0], rel=1e-12)
    assert critic_scores(segments, critic, reward_scale=0.1) == pytest.approx([8.3, 2.4], rel=1e-12)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="reward scale is .*; give a positive number"):
            critic_scores(segments, critic, reward_scale=wrong)


def test_scores_hand_their_settings_on(model, make_segments):
    segments, critic = make_segments(5, 3), load_critic(model())
    ends = np.concatenate([segments.states[:, 0], segments.states[:, -1]])
    rewards = segments.rewards[:, :-1].astype(np.float64).sum(1)
    for more in ({}, {"samples": 3, "seed": 4, "ensemble": "min"}):
        v = critic.value(ends, **more)
        assert np.allclose(critic_scores(segments, critic, **more), rewards + v[5:] - v[:5], rtol=1e-12)


def test_a_critic_of_another_size(model, make_segments):
    with pytest.raises(UserError, match="reads states of 39 numbers, these have 35; train SAC on the states"):
        critic_scores(make_segments(), load_critic(model(weights(39))))
    with pytest.raises(
        UserError, match="policy has 3 actions, the segments have 4; give a critic of this task"
    ):
        critic_scores(make_segments(), load_critic(model(weights(actions=3))))


def test_values_that_overflow(model, make_segments):
    state = plain()
    state["critic.qf0.0.weight"] += 1e308
    with pytest.raises(UserError, match="values are not finite"):
        critic_scores(make_segments(), load_critic(model(state)))


def test_the_other_scores_know_no_critic(make_segments):
    with pytest.raises(UserError, match="label sac needs a critic; .*--by sac --critic"):
        scores(make_segments(), "sac", np.zeros((12, 2)))


# --- files ---------------------------------------------------------------------------------------------------


class Touch:
    """What unpickling would run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled(model, tmp_path):
    trap = tmp_path / "sprung"
    code = base64.b64encode(pickle.dumps(Touch(trap))).decode()
    options = {":type:": "<class 'dict'>", ":serialized:": code}
    load_critic(model(data=json.dumps({"policy_class": options, "policy_kwargs": options})))
    for hostile in (
        {"content": pickle.dumps(Touch(trap))},
        {"state": weights() | {"actor.mu.bias": Touch(trap)}},
        {"data": pickle.dumps(Touch(trap))},
    ):
        with pytest.raises(UserError, match="is no model that SAC.save wrote"):
            load_critic(model(**hostile))
    assert not trap.exists()
    pickle.loads(pickle.dumps(Touch(trap)))
    assert trap.exists(), "the trap works"


def test_files_that_are_no_model(model, tmp_path):
    whole = model().read_bytes()
    for content in (b"", b"not an archive", b"PK\x03\x04torn", whole[: len(whole) // 2]):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(UserError, match=r"bad.zip is no model that SAC.save wrote, or a torn one"):
            load_critic(tmp_path / "bad.zip")
    at = whole.index(b"policy.pth") + 5000
    (tmp_path / "bad.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(UserError, match="is no model"):
        load_critic(tmp_path / "bad.zip")
    for path in (tmp_path / "nothing.zip", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            load_critic(path)
    with pytest.raises(UserError, match="holds no SAC model: policy.pth is missing"):
        load_critic(model(policy="weights.pth"))


@pytest.mark.parametrize(
    "data", ["[]", "{", "[" * 100_000, '{"policy_kwargs": 3}'], ids=["list", "torn", "deep", "number"]
)
def test_data_that_is_no_description(model, data):
    with pytest.raises(UserError, match="is no model that SAC.save wrote"):
        load_critic(model(data=data))


@pytest.mark.parametrize("state", [[1, 2], {3: torch.zeros(2)}, {"actor.mu.bias": "text"}])
def test_weights_that_are_no_state_dict(model, state):
    with pytest.raises(UserError, match="is no model that SAC.save wrote"):
        load_critic(model(state))


def test_the_activation(model):
    named = json.dumps({"policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.{}'>"}})
    load_critic(model(data=named.replace("{}", "ReLU")))
    load_critic(model(data='{"policy_kwargs": null}'))
    for other in ("Tanh", "LeakyReLU"):
        with pytest.raises(UserError, match=rf"has the activation .*\.{other}'>; only ReLU, sb3's default"):
            load_critic(model(data=named.replace("{}", other)))


def test_files_that_grow(model, monkeypatch, tmp_path):
    path = model()
    monkeypatch.setattr(module, "_LARGEST_TEXT", 10)
    with pytest.raises(UserError, match="holds a data of more than"):
        load_critic(path)
    monkeypatch.setattr(module, "_LARGEST_TEXT", 1000)
    monkeypatch.setattr(module, "_LARGEST", 1000)
    with pytest.raises(UserError, match="holds a policy.pth of more than"):
        load_critic(path)
    # A bomb inside: 8 MB of zeros, deflated to a few kB.
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(weights() | {"actor.mu.weight": torch.zeros(1000, 1000, dtype=torch.float64)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert len(packed.getvalue()) < 100_000
    monkeypatch.setattr(module, "_LARGEST", 100_000)
    with pytest.raises(UserError, match="holds weights of more than"):
        load_critic(model(content=packed.getvalue()))


def test_views_of_any_size(model):
    huge = torch.zeros(1).expand(100_000, 100_000)
    with pytest.raises(UserError, match="claims more weights than fit into it"):
        load_critic(model(weights() | {"actor.mu.weight": huge}))
    with pytest.raises(UserError, match="claims more weights"):
        load_critic(model(weights() | {f"actor.{i}": torch.zeros(1) for i in range(1000)}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["actor.log_std.bias", "critic.qf1.2.weight"])
def test_weights_that_are_not_finite(model, name, value):
    state = weights()
    state[name].view(-1)[1] = value
    with pytest.raises(UserError, match=f"has NaN or infinite weights in {name}"):
        load_critic(model(state))


def test_targets_are_not_read(model):
    load_critic(model(weights() | {"critic_target.qf0.0.weight": torch.full((2,), math.nan)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"actor.log_std": torch.zeros(6, 4)},
            "explores by state-dependent noise; train SAC with use_sde=False",
        ),
        ({"actor.features_extractor.cnn.0.weight": torch.zeros(2)}, "features extractor, such as a CNN"),
        ({"actor.latent_pi.1.weight": torch.zeros(6)}, "actor.latent_pi.1.weight is not part of one"),
        ({"critic.qf3.0.weight": torch.zeros(5, 39)}, "critic.qf3.0.weight is not part of one"),
        ({"actor.mu.weight": None}, "actor.mu.weight is missing"),
        ({"actor.latent_pi.0.bias": None}, "actor.latent_pi.0.bias is missing"),
        ({f"critic.qf0.{i}.weight": None for i in (0, 2, 4)}, "critic.qf0.0.bias is not part of one"),
        ({"actor.mu.weight": torch.zeros(4, 7)}, r"actor.mu has shapes \(4, 7\) and \(4,\)"),
        ({"actor.mu.bias": torch.zeros(3)}, r"actor.mu has shapes \(4, 6\) and \(3,\)"),
        ({"actor.log_std.weight": torch.zeros(4, 6, 1)}, r"actor.log_std has shapes \(4, 6, 1\)"),
        (
            {"actor.log_std.weight": torch.zeros(3, 6), "actor.log_std.bias": torch.zeros(3)},
            "last layers have other sizes",
        ),
        ({"critic.qf1.0.weight": torch.zeros(5, 38)}, r"critic.qf1.0 has shapes \(5, 38\)"),
        ({"critic.qf1.2.weight": torch.zeros(3, 4)}, r"critic.qf1.2 has shapes \(3, 4\)"),
        (
            {"critic.qf1.4.weight": torch.zeros(2, 3), "critic.qf1.4.bias": torch.zeros(2)},
            "last layers have other sizes",
        ),
        ({"actor.mu.weight": torch.zeros(0, 6), "actor.mu.bias": torch.zeros(0)}, "actor.mu has shapes"),
        (
            {"critic.qf0.0.weight": torch.zeros(9000, 39), "critic.qf0.0.bias": torch.zeros(9000)},
            r"critic.qf0.0 has shapes \(9000, 39\)",
        ),
    ],
)
def test_other_policies(model, change, message):
    state = {name: value for name, value in (weights() | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        load_critic(model(state))


def test_no_critic_at_all(model):
    state = {name: value for name, value in weights().items() if not name.startswith("critic.")}
    with pytest.raises(UserError, match="critic.qf0 is missing"):
        load_critic(model(state))


# --- the command ---------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(cli_control.app, ["label", *arguments], catch_exceptions=False)


def test_pairs_by_a_critic(model, make_segments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segments = make_segments()
    save(segments, tmp_path / "d.npz")
    state = weights()
    for k in (0, 1):  # blind to the state, so that the draws tell segments apart
        state[f"critic.qf{k}.0.weight"][:, :35] = 0.0
    model(state)
    options = ["--seed", "2", "--reward-scale", "0.1"]
    result = run("d.npz", "--by", "sac", "--critic", "model.zip", *options, "--out", "p.npz")
    assert result.exit_code == 0 and "66 pairs by sac" in result.output
    ends = np.concatenate([segments.states[:, 0], segments.states[:, -1]])
    noise = np.random.default_rng(2).standard_normal((24, 64, 4))
    v = twin(weights(critics=3) | state, ends, noise)[:2].mean((0, 2))
    score = 0.1 * segments.rewards[:, :-1].sum(1) + v[12:] - v[:12]
    with np.load(tmp_path / "p.npz") as pairs:
        assert (pairs["preferred"] == (score[pairs["first"]] > score[pairs["second"]])).all()
        assert str(pairs["by"]) == "sac" and 0 < pairs["preferred"].mean() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "sac"], "--by sac and --critic go together"),
        (["--by", "return", "--critic", "model.zip"], "--by sac and --critic go together"),
        (["--critic", "model.zip"], "--by sac and --critic go together"),
        (["--by", "sac", "--critic", "nothing.zip"], "nothing.zip can't be read"),
        (["--by", "sac", "--critic", "model.zip", "--ensemble", "most"], "choose mean or min"),
        (["--by", "sac", "--critic", "model.zip", "--reward-scale", "0"], "reward scale is 0"),
    ],
)
def test_what_the_command_refuses(arguments, message, model, make_segments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(make_segments(), tmp_path / "d.npz")
    model()
    with pytest.raises(UserError, match=message):
        run("d.npz", *arguments, "--out", "p.npz")
    assert not (tmp_path / "p.npz").exists()


# --- Stable-Baselines3 itself --------------------------------------------------------------------------------


def test_as_stable_baselines3_has_it(tmp_path):
    sb3 = pytest.importorskip(
        "stable_baselines3", reason="compares with stable-baselines3 where it is installed"
    )
    gym = pytest.importorskip("gymnasium")

    class Toy(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (35,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (4,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.state = self.np_random.normal(size=35).astype(np.float32)
            return self.state, {}

        def step(self, action):
            self.state = (0.9 * self.state + 0.3 * self.np_random.normal(size=35)).astype(np.float32)
            self.state[:4] += action
            return (
                self.state,
                float(-np.abs(self.state[:4]).sum()),
                False,
                bool(self.np_random.random() < 0.05),
                {},
            )

    sac = sb3.SAC(
        "MlpPolicy", Toy(), seed=0, learning_starts=20, device="cpu", policy_kwargs={"net_arch": [32, 16]}
    )
    sac.learn(60).save(tmp_path / "sac.zip")
    critic = load_critic(tmp_path / "sac.zip")
    rng = np.random.default_rng(0)
    states = 2 * rng.normal(size=(40, 35)).astype(np.float32)
    actions = rng.uniform(-1, 1, (40, 4)).astype(np.float32)
    noise = torch.tensor(np.random.default_rng(5).standard_normal((40, 64, 4)), dtype=torch.float32)
    with torch.no_grad():
        s = torch.tensor(states)
        q = torch.stack(sac.critic(s, torch.tensor(actions)))[..., 0].numpy()
        mean, log_std, _ = sac.actor.get_action_dist_params(s)
        before = (mean[:, None] + log_std.exp()[:, None] * noise).reshape(-1, 4)
        spread = sac.actor.action_dist.proba_distribution(
            *(x.repeat_interleave(64, 0) for x in (mean, log_std))
        )
        logp = spread.log_prob(torch.tanh(before), before).numpy()
        drawn = torch.stack(sac.critic(s.repeat_interleave(64, 0), torch.tanh(before)))[..., 0].numpy()
    assert np.allclose(critic.q(states, actions), q, atol=1e-5)
    assert np.allclose(critic.value(states, 64, 5), drawn.mean(0).reshape(40, 64).mean(1), atol=1e-5)
    soft = (drawn.mean(0) - 0.2 * logp).reshape(40, 64).mean(1)
    assert np.allclose(critic.value(states, 64, 5, alpha=0.2), soft, atol=1e-5)
