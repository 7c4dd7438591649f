"""Value heads on a fixed log of ProcMaze, where the true values of every state are known: discrete offline learning.

The log: `MAZES` mazes with `STEPS` steps each, by a policy that takes the optimal action half of the time and a uniform
one else; who reaches the goal starts anew in the same maze. A Q-network of all five actions learns from it by
Q-learning (target max) or SARSA (the logged next action), with a target network that is copied every `COPY` updates; or
from the optimal values themselves, as labels. The mazes may be dealt to variants of the rules that one network learns,
and CQL's term may hold down the values of actions that the log does not have: alpha (log sum_a exp Q(s, a) - Q(s, a)).
Truth is value iteration on other mazes: the regret of the greedy policy, the error of its values, and how much of the
optimal value a linear map of the frozen last hidden layer explains. Numbers of `Numbers` are traced, so that arms that
differ in them, and seeds, train in one program.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_suite import nets
from jaxrl_suite.envs import procmaze
from jaxrl_suite.envs.procmaze import ACTIONS, Rules, State
from jaxrl_suite.types import Array, Key, Metrics, Tree, ValueHead
from jaxrl_suite.values import heads, projections
from jaxrl_suite.values.projections import Support

SIZE, GAMMA = 3, 0.9
MAZES, STEPS, OPTIMAL_SHARE = 1024, 12, 0.5
HELD_OUT, RIDGE = 256, 1e-3
COPY, EVALUATIONS = 100, 5


class Numbers(NamedTuple):
    """What members of a program may differ in."""

    rate: Any  # of Adam
    low: Any  # ends of the support
    high: Any
    noise: Any  # eta: rewards have noise uniform over a width of eta
    centred: Any  # 1: around 0, 0: above 0, as in the paper
    slip: Any  # probability of a random action in place of the chosen one
    teleport: Any
    conservative: Any = 0.0  # alpha, the weight of CQL's term


class Program(NamedTuple):
    """What makes a program of its own."""

    head: heads.HeadConfig
    hidden: tuple[int, ...]
    target: str  # max, sarsa or labels
    updates: int
    batch: int
    tasks: int = 1  # variants of the rules
    conservative: bool = False  # whether there is CQL's term
    experts: int = 0  # of a soft mixture in place of the last hidden layer

    @property
    def sarsa(self) -> bool:
        """Whether the values are those of the logging policy."""
        return self.target == "sarsa"


class Log(NamedTuple):
    """Transitions, flat."""

    obs: Array  # [n, dim] bool
    action: Array  # [n]
    reward: Array  # [n] with its noise
    next_obs: Array  # [n, dim] bool
    next_action: Array  # [n]
    ended: Array  # [n] bool
    optimal: Array  # [n] true values of the best policy


class Task(NamedTuple):
    """A log, and other mazes with their true values."""

    log: Log
    mazes: State  # [mazes]
    obs: Array  # [mazes, cells, dim] the player on each cell
    optimal: Array  # [mazes, cells, 5] values of the best policy
    logged: Array  # [mazes, cells, 5] values of the logging policy


class Learnt(NamedTuple):
    """What is known of a member after training."""

    q: Array  # [evaluations, mazes, cells, 5]
    features: Array  # [mazes, cells, units] the last hidden layer at the end
    fit: Metrics  # what the head measures on the last batch; nothing where it has no support


# --- Heads ---
def one_sided(config: heads.HeadConfig) -> ValueHead:
    """HL-Gauss as a public implementation has it: distances below the target are cut to 0 (`max(edge - y, 1e-6)`), so
    the mass lies above the target, +0.6 bins on average, and there is none for targets at the upper end. To show it."""
    head = heads.hl_gauss(config)

    def loss(logits: Array, target: Array, support: Support) -> Array:
        width = (support.high - support.low) / config.bins
        edges = support.low + width * jnp.arange(config.bins + 1)
        far = jnp.maximum(edges - target[..., None], 1e-6)
        below = jax.scipy.special.erf(far / (jnp.sqrt(2.0) * config.sigma_ratio * width))
        probs = jnp.diff(below) / (below[..., -1:] - below[..., :1] + 1e-6)
        return projections.cross_entropy(logits, probs)

    return head._replace(loss=loss)


def make_head(config: heads.HeadConfig) -> ValueHead:
    """A head of values/heads.py, or the faulty one."""
    return one_sided(config) if config.name == "one_sided" else heads.make(config)


# --- The log ---
def truth(maze: State, rules: Rules) -> Array:
    """Optimal values `[cells, 5]`."""
    return procmaze.values(maze, GAMMA, rules)


def behaviour(optimal: Array) -> Array:
    """The logging policy `[cells, 5]`."""
    greedy = jax.nn.one_hot(jnp.argmax(optimal, axis=-1), ACTIONS)
    return OPTIMAL_SHARE * greedy + (1.0 - OPTIMAL_SHARE) / ACTIONS


def log(key: Key, numbers: Numbers) -> Log:
    """A log of this seed and these rules."""
    rules = Rules(numbers.teleport, numbers.slip)

    def walk(key: Key) -> Log:
        maze_key, first_key, key = jax.random.split(key, 3)
        maze = procmaze.reset(maze_key, SIZE)
        optimal = truth(maze, rules)
        policy = jnp.log(behaviour(optimal))

        def act(carry: tuple[State, Array], key: Key) -> tuple[tuple[State, Array], Log]:
            state, action = carry
            step_key, action_key, noise_key, start_key, again_key = jax.random.split(key, 5)
            after, ended = procmaze.step(state, action, step_key, rules)
            noise = numbers.noise * (jax.random.uniform(noise_key) - 0.5 * numbers.centred)
            next_action = jax.random.categorical(action_key, policy[after.player])
            obs, next_obs = procmaze.observe(state), procmaze.observe(after)
            seen = Log(obs, action, noise - 1.0, next_obs, next_action, ended, optimal[state.player, action])
            start = procmaze.any_cell(start_key, state.open)
            player = jnp.where(ended, start, after.player)
            again = jax.random.categorical(again_key, policy[start])
            return (after._replace(player=player), jnp.where(ended, again, next_action)), seen

        first = jax.random.categorical(first_key, policy[maze.player])
        return jax.lax.scan(act, (maze, first), jax.random.split(key, STEPS))[1]

    rows = jax.vmap(walk)(jax.random.split(key, MAZES))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


# --- Variants, in each of which actions make other moves: many tasks for one network ---
def actions_of(tasks: int) -> Array:
    """The action `[tasks, 5]` that makes each move, no two variants alike; in the first, that of its number."""
    orders = list(itertools.permutations(range(ACTIONS)))
    return jnp.array(orders[:: len(orders) // tasks][:tasks])


def varied(task: Task, tasks: int) -> Task:
    """The task with its mazes dealt to variants in turn: what is seen tells which, and actions are the variant's."""
    rows, logged, held = task.log, jnp.arange(MAZES).repeat(STEPS) % tasks, jnp.arange(HELD_OUT) % tasks

    def told(obs: Array, which: Array) -> Array:
        return jnp.concatenate([obs, jax.nn.one_hot(which, tasks, dtype=bool)], axis=-1)

    log = rows._replace(
        obs=told(rows.obs, logged),
        next_obs=told(rows.next_obs, logged),
        action=actions_of(tasks)[logged, rows.action],
        next_action=actions_of(tasks)[logged, rows.next_action],
    )
    return task._replace(log=log, obs=told(task.obs, jnp.broadcast_to(held[:, None], task.obs.shape[:2])))


def of_moves(q: Array, tasks: int) -> Array:
    """Values `[mazes, cells, 5]` of variants' actions as values of moves, which the truth is about."""
    index = actions_of(tasks)[jnp.arange(HELD_OUT) % tasks]
    return jnp.take_along_axis(q, jnp.broadcast_to(index[:, None], q.shape), axis=-1)


# --- Learning ---
def network(program: Program, size: int) -> nets.Network:
    """Q of all actions; outputs begin near zero."""
    outputs, told, init = {"q": ACTIONS * size}, program.tasks if program.tasks > 1 else 0, nets.fan_in_uniform(0.3)
    if not program.experts:
        return nets.mlp(SIZE * SIZE * 4 + told, program.hidden, outputs, head_init=init)
    channels, units = program.hidden
    net = nets.soft_moe((SIZE, SIZE, 4), channels, units, program.experts, outputs, init)
    return net._replace(
        apply=lambda weights, obs: net.apply(weights, jnp.reshape(obs, (*obs.shape[:-1], SIZE, SIZE, 4)))
    )


def logits_of(net: nets.Network, weights: Tree, obs: Array) -> Array:
    """`[..., 5, size]`."""
    out = net.apply(weights, obs.astype(jnp.float32))["q"]
    return out.reshape(*out.shape[:-1], ACTIONS, -1)


def features(weights: Tree, obs: Array) -> Array:
    """The last hidden layer of a perceptron."""
    x = obs.astype(jnp.float32)
    for index in range(len(weights) - 1):
        layer = weights[f"hidden_{index}"]
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x


def pick(logits: Array, action: Array) -> Array:
    """The logits `[batch, size]` of one action each."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]


def compared(
    head: ValueHead, net: nets.Network, weights: Tree, target: Tree, rows: Log, support: Any, aim: str
) -> tuple[Array, Any]:
    """Logits, and their targets: r + gamma Q_target(s', a'), a' the best action there or, with `sarsa`, the logged one;
    with `labels`, the optimal values."""
    there = logits_of(net, target, rows.next_obs)
    best = rows.next_action if aim == "sarsa" else jnp.argmax(head.decode(there, support), axis=-1)
    reward, discount = rows.reward, GAMMA * (1.0 - rows.ended)
    if aim == "labels":
        reward, discount = rows.optimal, jnp.zeros_like(discount)
    goal = head.target(reward, discount, pick(there, best), jnp.zeros_like(reward), support)
    return pick(logits_of(net, weights, rows.obs), rows.action), jax.lax.stop_gradient(goal)


def td_loss(
    head: ValueHead, net: nets.Network, weights: Tree, target: Tree, rows: Log, support: Any, aim: str
) -> Array:
    """The head's loss to those targets."""
    return jnp.mean(head.loss(*compared(head, net, weights, target, rows, support, aim), support))


def conservatism(head: ValueHead, net: nets.Network, weights: Tree, rows: Log, support: Any) -> Array:
    """CQL's term (Kumar et al. 2020, arXiv 2006.04779, equation 4): all actions' values over that of the logged one."""
    q = head.decode(logits_of(net, weights, rows.obs), support)
    logged = jnp.take_along_axis(q, rows.action[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(q, axis=-1) - logged)


def support_of(head: heads.HeadConfig, numbers: Numbers) -> Any:
    """The traced ends; nothing for heads without a support."""
    ends = Support(jnp.float32(numbers.low), jnp.float32(numbers.high))
    return () if head.name in heads.WITHOUT_SUPPORT else ends


def learn(program: Program, key: Key, numbers: Numbers, task: Task) -> Learnt:
    """Train one member; its values and features at all cells of the mazes that its log does not have."""
    init_key, batch_key = jax.random.split(jax.random.fold_in(key, 1))
    task = varied(task, program.tasks) if program.tasks > 1 else task
    head = make_head(program.head)
    net, support = network(program, head.size), support_of(program.head, numbers)
    rows, adam = task.log, optax.scale_by_adam()
    weights = net.init(init_key)

    def batch(step: Any) -> Log:
        index = jax.random.randint(jax.random.fold_in(batch_key, step), (program.batch,), 0, len(rows.action))
        return jax.tree.map(lambda x: x[index], rows)

    def loss(weights: Tree, target: Tree, rows: Log) -> Array:
        fit = td_loss(head, net, weights, target, rows, support, program.target)
        if not program.conservative:
            return fit
        return fit + numbers.conservative * conservatism(head, net, weights, rows, support)

    def update(carry: tuple, step: Array) -> tuple[tuple, None]:
        weights, target, state = carry
        gradient = jax.grad(lambda w: loss(w, target, batch(step)))(weights)
        change, state = adam.update(gradient, state)
        weights = jax.tree.map(lambda w, c: w - numbers.rate * c, weights, change)
        target = jax.tree.map(lambda t, w: jnp.where((step + 1) % COPY == 0, w, t), target, weights)
        return (weights, target, state), None

    def stretch(carry: tuple, steps: Array) -> tuple[tuple, Array]:
        carry, _ = jax.lax.scan(update, carry, steps)
        return carry, head.decode(logits_of(net, carry[0], task.obs), support)

    steps = jnp.arange(program.updates).reshape(EVALUATIONS, -1)
    (weights, target, _), q = jax.lax.scan(stretch, (weights, weights, adam.init(weights)), steps)
    last = compared(head, net, weights, target, batch(program.updates - 1), support, program.target)
    q = jax.vmap(lambda each: of_moves(each, program.tasks))(q) if program.tasks > 1 else q
    seen = net.apply(weights, task.obs)["features"] if program.experts else features(weights, task.obs)
    return Learnt(q, seen, head.measure(*last, support))


# --- Tasks and measures: the same programs for every head ---
def prepare(key: Key, numbers: Numbers) -> Task:
    """The log of a seed, and the mazes that its learners are measured on."""
    data_key, test_key = jax.random.split(jax.random.fold_in(key, 0))
    rules = Rules(numbers.teleport, numbers.slip)
    mazes = jax.vmap(lambda key: procmaze.reset(key, SIZE))(jax.random.split(test_key, HELD_OUT))
    cells = jnp.arange(SIZE * SIZE)
    obs = jax.vmap(lambda maze: jax.vmap(lambda cell: procmaze.observe(maze._replace(player=cell)))(cells))(mazes)
    optimal = jax.vmap(lambda maze: truth(maze, rules))(mazes)
    logged = jax.vmap(lambda m, p: procmaze.values(m, GAMMA, rules, p))(mazes, jax.vmap(behaviour)(optimal))
    return Task(log(data_key, numbers), mazes, obs, optimal, logged)


def measure(sarsa: Array, numbers: Numbers, task: Task, learnt: Learnt) -> Metrics:
    """Learnt values against the truth, means over open cells: `[evaluations]`, those of the end alone `[1]`."""
    rules, mazes = Rules(numbers.teleport, numbers.slip), task.mazes
    weight = mazes.open / jnp.sum(mazes.open)
    mean = lambda x: jnp.sum(weight * x)  # noqa: E731
    # Every reward is -1, so -Q counts discounted steps, each of which uncentred noise raises by eta / 2.
    true_q = jnp.where(sarsa, task.logged, task.optimal) * (1.0 - 0.5 * numbers.noise * (1.0 - numbers.centred))
    chance = jnp.full(task.optimal.shape, 1.0 / ACTIONS)

    def value(policy: Array) -> Array:
        q = jax.vmap(lambda maze, p: procmaze.values(maze, GAMMA, rules, p))(mazes, policy)
        return mean(jnp.sum(policy * q, axis=-1))

    least, most = value(chance), mean(jnp.max(task.optimal, axis=-1))
    usual = mean(jnp.sum(jax.vmap(behaviour)(task.optimal) * task.logged, axis=-1))

    def each(q: Array) -> Metrics:
        error, returns = q - true_q, value(jax.nn.one_hot(jnp.argmax(q, axis=-1), ACTIONS))
        return {
            "return": returns,
            "score": 100.0 * (returns - least) / (most - least),
            "q": mean(jnp.max(q, axis=-1)),
            "true": mean(jnp.max(true_q, axis=-1)),
            "value_error": jnp.sqrt(mean(jnp.mean(jnp.square(error), axis=-1))),
            "value_bias": mean(jnp.mean(error, axis=-1)),
        }

    explained = probe(learnt.features, jnp.max(task.optimal, axis=-1), mazes.open)
    once = {"behaviour": usual, "probe": explained, **learnt.fit}
    return jax.lax.map(each, learnt.q) | {name: value[None] for name, value in once.items()}


def probe(x: Array, y: Array, known: Array) -> Array:
    """The share of the variance of `y` that a ridge regression on features explains, on the other half of the mazes."""
    half = len(y) // 2
    x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

    def part(cut: slice) -> tuple[Array, Array, Array]:
        return x[cut].reshape(-1, x.shape[-1]), y[cut].reshape(-1), known[cut].reshape(-1).astype(jnp.float32)

    (x1, y1, w1), (x2, y2, w2) = part(slice(half)), part(slice(half, None))
    gram = (x1.T * w1) @ x1 + RIDGE * jnp.sum(w1) * jnp.eye(x1.shape[-1])
    solution = jnp.linalg.solve(gram, (x1.T * w1) @ y1)
    middle = jnp.sum(w2 * y2) / jnp.sum(w2)
    return 1.0 - jnp.sum(w2 * jnp.square(x2 @ solution - y2)) / jnp.sum(w2 * jnp.square(y2 - middle))
