"""Wrap MetaWorld, in the only file that knows it: tasks, whole states saved and restored, the scripted expert."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np

from entropilot.errors import UserError

# The six of CPL and PPL; metaworld 3 has them as -v3 only.
PAPER_TASKS = (
    "bin-picking",
    "button-press-topdown",
    "door-open",
    "drawer-open",
    "plate-slide",
    "sweep-into",
)
STATE_SIZE, ACTION_SIZE, HORIZON = 35, 4, 250
_UNUSED = slice(18, 22)  # second object's place and turn in the previous frame; CPL drops them as well
_FULL_SIZE = 39


def need_metaworld() -> None:
    """Refuse in one sentence where MetaWorld is not installed.

    Raises:
        UserError: a package is missing.
    """
    missing = [name for name in ("metaworld", "mujoco", "packaging") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"This needs {', '.join(missing)}; install it with: pip install 'entropilot[control]'"
        )


def check_task(task: str) -> str:
    """Return the task's plain name, without -v3.

    Raises:
        UserError: MetaWorld has no such task.
    """
    need_metaworld()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as CLASSES

    name = task.removesuffix("-v3")
    if f"{name}-v3-goal-observable" not in CLASSES:
        raise UserError(f"MetaWorld has no task {task!r}; the benchmark's are {', '.join(PAPER_TASKS)}.")
    return name


class ControlEnv:
    """Wrap one MetaWorld task: 35 numbers a state, 4 actions in [−1, 1], reward 0 to 10 a step, random starts by seed.

    `reset(seed)` is exact: the same seed gives the same episode, bit by bit. `snapshot` and `restore` carry the whole
    state of the simulator within an episode, and between processes after a `reset` with the episode's seed.
    """

    def __init__(self, task: str) -> None:
        self.task = check_task(task)
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as CLASSES
        from metaworld.policies import ENV_POLICY_MAP

        self._mujoco = mujoco
        # Not `_partially_observable=False` on a plain class: its observation space stays cached and zeroes the goal.
        self._env: Any = CLASSES[f"{self.task}-v3-goal-observable"](seed=0)
        self._env._freeze_rand_vec = False  # the class would start every episode alike
        self._env.seeded_rand_vec = True
        self._script: Any = ENV_POLICY_MAP[f"{self.task}-v3"]()
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION  # get_env_state leaves out the mocap body
        self._size = mujoco.mj_stateSize(self._env.model, self._kind)
        self._full = np.zeros(_FULL_SIZE)

    @property
    def model(self) -> Any:
        """Return the mujoco model, for a renderer."""
        return self._env.model

    @property
    def data(self) -> Any:
        """Return the mujoco data, for a renderer."""
        return self._env.data

    @property
    def state(self) -> np.ndarray:
        """Return what a policy sees, (35,) float32."""
        return np.delete(self._full, _UNUSED).astype(np.float32)

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of a seed (0 to 2³²−1)."""
        self._env.seed(int(seed))  # reset(seed=) is ignored by design
        self._full = np.asarray(self._env.reset()[0])
        return self.state

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Return the state, the reward (0 to 10) and whether the task is solved at this step."""
        clipped = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        full, reward, _, _, info = self._env.step(clipped)
        self._full = np.asarray(full)
        return self.state, float(reward), bool(info["success"])

    def script_action(self) -> np.ndarray:
        """Return the scripted expert's action, clipped to the box: it asks for more than the box holds."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Constant\\(s\\) may be too high")
            action = self._script.get_action(self._full)
        return np.clip(np.asarray(action, np.float32), -1.0, 1.0)

    def snapshot(self) -> np.ndarray:
        """Return the simulator's whole state and the observation as one vector, float64."""
        state = np.empty(self._size)
        self._mujoco.mj_getState(self._env.model, self._env.data, state, self._kind)
        return np.concatenate([state, self._full])

    def restore(self, snapshot: np.ndarray) -> np.ndarray:
        """Return to a snapshot of this episode (after `reset` with its seed), with the step count at 0."""
        if snapshot.shape != (self._size + _FULL_SIZE,):
            raise UserError(
                f"A saved state of {snapshot.size} numbers is none of {self.task} "
                f"({self._size + _FULL_SIZE}); label with the task that collected."
            )
        self._mujoco.mj_setState(self._env.model, self._env.data, snapshot[: self._size], self._kind)
        self._mujoco.mj_forward(self._env.model, self._env.data)
        self._full = snapshot[self._size :].copy()
        self._env._prev_obs = self._full[:18].copy()
        self._env.curr_path_length = 0
        return self.state


def script_value(env: ControlEnv, snapshot: np.ndarray, gamma: float = 0.99, steps: int = 100) -> float:
    """Return the discounted reward of the scripted expert from a snapshot.

    After `steps` the last reward is taken to go on for ever. Neither the expert nor the value is optimal:
    where the script gets stuck (bin-picking) the value is too low.
    """
    env.restore(snapshot)
    value, discount, reward = 0.0, 1.0, 0.0
    for _ in range(steps):
        _, reward, _ = env.step(env.script_action())
        value += discount * reward
        discount *= gamma
    return value + discount * reward / (1 - gamma)
