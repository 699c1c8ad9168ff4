#!/usr/bin/env python3
"""Trains the peers of SyncValue's lifetime-value model and writes their predictions and scores.

    python peers.py --data DATA --score SCORE.py --out DIR [--peer NAME ...] [--dataset ...] [--regime ...] [--seed ...]

DATA holds cdnow_daily.csv and online_retail_daily.csv; SCORE.py is the protocol (how logs are read, split and scored),
imported as a module so that every figure is the protocol's own. Both default to the folders beside
$KIKI_CONFORMANCE_DATA.

Peers
  past         spend so far (regime A: in a last stretch as long as the holdout), as the protocol defines it
  pareto-nbd   Pareto/NBD of purchase days, Gamma-Gamma of the mean spend of *all* purchases      (lifetimes)
  bg-nbd       BG/NBD of purchase days, the same Gamma-Gamma                                      (lifetimes)
  tweedie-glm  Tweedie GLM and a logistic regression on log RFM + BTYD features                   (scikit-learn)
  ziln         zero-inflated log-normal network of Wang et al. 2019, as published, on RFM         (torch)
  ziln-rich    the same on all RFM features and cuts, its mean capped, dropout and weight decay   (torch)
  lightgbm     Tweedie mean, binary activity and three quantiles on RFM + BTYD features           (lightgbm)

Regime B: the learned peers train on the fit part's customers at several cuts, each with the full horizon, and the val
part at the calibration end stops or chooses; test customers lend no label. Regime A: the cuts lie inside the
calibration window, each with the horizon that is left; spends are scaled to the full horizon by what Pareto/NBD expects
of both, and a random fifth of the customers stops or chooses. The Pareto/NBD behind features and scale is fitted on the
calibration window alone.

Writes DIR/<peer>/<dataset>-<regime>-<seed>.csv and merges the scores into DIR/metrics.json.
"""
import argparse
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import time
import warnings

import numpy as np
import pandas as pd

DATA = os.path.join(os.environ.get("KIKI_CONFORMANCE_DATA", "../shared/data"), "ltv")
SCORE = os.path.join(DATA, "..", "..", "bench", "ltv", "score.py")
CUTS = {("cdnow", "A"): (13, 17, 21, 26), ("retail", "A"): (8, 11, 14, 17),  # weeks
        ("cdnow", "B"): (39, 35, 31, 27), ("retail", "B"): (26, 22, 18, 14)}
BTYD = ["alive", "active", "count", "ticket", "value"]
QUANTILES = {"q05": .05, "median": .5, "q95": .95}
THREADS = 2


def protocol(score_path, data):
    """The scoring script as a module that reads `data`."""
    spec = importlib.util.spec_from_file_location("score", score_path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.D = data
    return module


class Log:
    """A dataset: its purchases, the calibration end and horizon in weeks, and the true holdout."""

    def __init__(self, score, name):
        self.score, self.name = score, name
        self.cfg, self.days, self.ids = score.load(name)
        self.n, self.end, self.horizon = len(self.ids), self.cfg["cal"], self.cfg["hold"]
        self.spend, self.purchases = self.window(self.end, self.end + self.horizon)
        self.cohort = (self.days.groupby("i").day.min().to_numpy() // 7).astype(int)

    def window(self, a, b):
        """Spend and purchase days of every customer from week a to week b."""
        return self.score.target(self.days, self.n, a * 7, b * 7)

    def evaluate(self, frame, regime, seed):
        """The protocol's metrics of a frame of predictions in the order of `ids`."""
        frame, test = frame.copy(), np.ones(self.n, bool)
        if regime == "B":
            fit, val, test = self.score.split(self.ids, seed)
            train = fit | val
            frame["mean"] *= self.spend[train].sum() / frame["mean"][train].sum()
        truth = self.spend[test], self.purchases[test], self.cohort[test]
        return self.score.score(*truth, frame[test].reset_index(drop=True))

    def past(self, regime):
        start = 0 if regime == "B" else max(0, self.end - self.horizon)
        return pd.DataFrame({"mean": self.window(start, self.end)[0]})

    @functools.cached_property
    def pareto(self):
        return ParetoNbd(self.rfm(self.end))

    def rfm(self, cut):
        """RFM features at a cut in weeks; a customer not yet born has NaN."""
        e = self.days[self.days.day < cut * 7]
        e = e.assign(gap=e.groupby("i").day.diff() / 7)
        g = e.groupby("i")
        first, last = g.day.min() / 7, g.day.max() / 7
        f = pd.DataFrame({
            "x": g.size() - 1, "tx": last - first, "T": cut - first, "idle": cut - last, "total": g.spend.sum(),
            "mean": g.spend.mean(), "sd": g.spend.std().fillna(0), "max": g.spend.max(), "first": g.spend.first(),
            "last": g.spend.last(), "items": g["items"].sum(), "gap": g.gap.mean(), "gap_sd": g.gap.std().fillna(0)})
        f["gap"] = f.gap.fillna(f["T"])
        f["lateness"] = f.idle / (f.gap + 1)
        f = f.reindex(range(self.n))
        for weeks in (4, 13):
            spend, purchases = self.window(max(0, cut - weeks), cut)
            f[f"spend_{weeks}"], f[f"purchases_{weeks}"] = spend, purchases
        return f

    @functools.lru_cache(maxsize=None)
    def features(self, cut, horizon):
        """RFM features at a cut, and what Pareto/NBD + Gamma-Gamma expects of the next `horizon` weeks."""
        f = self.rfm(cut)
        born = f.x.notna()
        f.loc[born, BTYD] = self.pareto.expect(f[born], horizon)[BTYD]
        return f


# ---------------------------------------------------------------- buy till you die
class ParetoNbd:
    """Pareto/NBD of purchase days with the Gamma-Gamma model of all purchases' mean spend."""

    def __init__(self, rfm):
        import lifetimes
        x, tx, age = rfm.x.to_numpy(), rfm.tx.to_numpy(), rfm["T"].to_numpy()
        self.model = self.fit(lifetimes, rfm.groupby(["x", "tx", "T"]).size().reset_index(name="w"))
        assert np.isfinite(self.counts(39, x, tx, age)).all()
        n, mean = self.tickets(rfm)
        some = (n > 0) & (mean > 0)
        self.gamma = lifetimes.GammaGammaFitter(penalizer_coef=1e-3)
        self.gamma.fit(n[some], mean[some])

    def fit(self, lifetimes, u):
        """The best of a few fits: its optimiser depends on where it starts."""
        best = None
        np.random.seed(0)  # where a fit without a start starts
        for penalty in (0., 1e-3):
            for start in (None, np.log([.5, .5, .5, .5]), np.log([.7, .3, .1, .5])):
                model = lifetimes.ParetoNBDFitter(penalizer_coef=penalty)
                try:
                    model.fit(u.x, u.tx, u["T"], weights=u.w, initial_params=start)
                except Exception:  # the fitter's own ConvergenceError, or an overflow
                    continue
                if np.isfinite(model._negative_log_likelihood_) and (
                        best is None or model._negative_log_likelihood_ < best._negative_log_likelihood_):
                    best = model
            if best is not None:
                return best
        raise RuntimeError("Pareto/NBD did not converge")

    def tickets(self, rfm):
        """How many purchases the mean spend rests on, and that mean. The first purchase counts: the textbook's mean of
        repeat purchases alone ranks worse, and where its q is below 1 it expects less than nothing of a newcomer."""
        return rfm.x.to_numpy() + 1, rfm["mean"].to_numpy()

    def counts(self, t, x, tx, age):
        return np.asarray(self.model.conditional_expected_number_of_purchases_up_to_time(t, x, tx, age))

    def log_likelihood(self, x, tx, age):
        return self.model._conditional_log_likelihood(self.model.params_.to_numpy(), x, tx, age)

    def expect(self, rfm, t):
        """P(alive), P(any purchase in t weeks), their expected number, the expected spend of one, and of all."""
        x, tx, age = rfm.x.to_numpy(), rfm.tx.to_numpy(), rfm["T"].to_numpy()
        f = pd.DataFrame(index=rfm.index)
        f["alive"] = np.clip(self.model.conditional_probability_alive(x, tx, age), 0, 1)
        # The same history with t more silent weeks, relative to the history: P(no purchase).
        f["active"] = np.clip(1 - np.exp(self.log_likelihood(x, tx, age + t) - self.log_likelihood(x, tx, age)), 0, 1)
        f["count"] = self.counts(t, x, tx, age)
        f["ticket"] = np.asarray(self.gamma.conditional_expected_average_profit(*self.tickets(rfm)))
        f["value"] = f["count"] * f.ticket
        return f

    def survivors(self, rng, x, age, t):
        """Purchases in t weeks of customers who are alive: given that, the rates are independent Gammas."""
        r, alpha, s, beta = self.model.params_.to_numpy()
        rate, death = rng.gamma(r + x) / (alpha + age), rng.gamma(s, size=len(x)) / (beta + age)
        with np.errstate(divide="ignore"):
            return rng.poisson(rate * np.minimum(t, rng.exponential(size=len(x)) / death))

    def predict(self, rfm, t, draws=500):
        """Expectations in closed form, quantiles by simulation from the posterior."""
        f, rng = self.expect(rfm, t), np.random.default_rng(0)
        x, age = rfm.x.to_numpy(), rfm["T"].to_numpy()
        n, mean = self.tickets(rfm)
        p, q, v = self.gamma.params_.to_numpy()
        spend = np.empty((draws, len(rfm)), np.float32)
        for row in spend:
            bought = np.where(rng.random(len(rfm)) < f.alive, self.survivors(rng, x, age, t), 0)
            rate = rng.gamma(q + p * n) / (v + n * mean)
            row[:] = np.where(bought > 0, rng.gamma(np.maximum(p * bought, 1e-9)) / rate, 0)
        out = pd.DataFrame({"mean": f.value, "p_active": f.active, "count": f["count"]})
        out[list(QUANTILES)] = np.quantile(spend, list(QUANTILES.values()), axis=0).T
        return out


class BgNbd(ParetoNbd):
    """BG/NBD of purchase days with the same Gamma-Gamma model."""

    def fit(self, lifetimes, u):
        """The least penalised fit that converges and whose expectations are finite."""
        for penalty, tolerance in itertools.product((0., 1e-5, 1e-4, 1e-3, 1e-2), (1e-7, 1e-5)):
            self.model = lifetimes.BetaGeoFitter(penalizer_coef=penalty)
            try:
                with contextlib.redirect_stdout(None):  # it prints every failure
                    self.model.fit(u.x, u.tx, u["T"], weights=u.w, tol=tolerance)
            except Exception:
                continue
            if np.isfinite(self.counts(39, u.x, u.tx, u["T"])).all():
                return self.model
        raise RuntimeError("BG/NBD did not converge")

    def log_likelihood(self, x, tx, age):
        """Up to what does not depend on age."""
        r, alpha, a, b = self.model.params_.to_numpy()
        dead = np.where(x > 0, np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + tx), -np.inf)
        return np.logaddexp(-(r + x) * np.log(alpha + age), dead)

    def survivors(self, rng, x, age, t):
        r, alpha, a, b = self.model.params_.to_numpy()
        rate, drop = rng.gamma(r + x) / (alpha + age), np.clip(rng.beta(a, b + x), 1e-9, 1)
        return np.minimum(rng.poisson(rate * t), rng.geometric(drop))


def pareto_nbd(log, regime, seed):
    return _cached(log, "pareto-nbd", lambda: log.pareto.predict(log.rfm(log.end), log.horizon))


def bg_nbd(log, regime, seed):
    return _cached(log, "bg-nbd", lambda: BgNbd(log.rfm(log.end)).predict(log.rfm(log.end), log.horizon))


def _cached(log, name, make):
    """What depends on neither regime nor seed is made once."""
    cache = log.__dict__.setdefault("_made", {})
    if name not in cache:
        cache[name] = make()
    return cache[name]


# ---------------------------------------------------------------- learned peers
class Task:
    """Rows to learn from and to predict: features for the full and for the row's own horizon, spend, activity."""

    def __init__(self, log, regime, seed, cuts=None):
        if regime == "B":
            fit, val, _ = log.score.split(log.ids, seed)
        else:
            val = np.random.default_rng(seed).random(log.n) < .2
            fit = ~val
        rows = []
        for cut in cuts or CUTS[log.name, regime]:
            h = log.horizon if regime == "B" else log.end - cut
            full, own = log.features(cut, log.horizon), log.features(cut, h)
            born = full.x.notna().to_numpy()
            y, k = log.window(cut, cut + h)
            y = y * (full.value.sum() / own.value.sum())
            chooses = val if regime == "A" or cut == log.end else np.zeros(log.n, bool)
            for part, mask in (("fit", fit & born), ("val", chooses & born)):
                rows.append((part, full[mask], own[mask], y[mask], k[mask] > 0))
        for part in ("fit", "val"):
            mine = [r for r in rows if r[0] == part]
            setattr(self, part, (pd.concat([r[1] for r in mine]), pd.concat([r[2] for r in mine]),
                                 np.concatenate([r[3] for r in mine]), np.concatenate([r[4] for r in mine])))
        self.test = log.features(log.end, log.horizon)


def lightgbm(log, regime, seed):
    import lightgbm as lgb
    task = Task(log, regime, seed)
    (x, xa, y, a), (vx, vxa, vy, va) = task.fit, task.val
    base = dict(learning_rate=.03, num_leaves=8, min_data_in_leaf=20, feature_fraction=.6, bagging_fraction=.7,
                bagging_freq=1, lambda_l2=5., num_threads=THREADS, seed=seed, deterministic=True, force_row_wise=True,
                verbose=-1)

    def boosted(x, y, vx, vy, **more):
        train = lgb.Dataset(x, y)
        return lgb.train(base | more, train, 1500, valid_sets=[lgb.Dataset(vx, vy, reference=train)],
                         callbacks=[lgb.early_stopping(75, verbose=False)]).predict(task.test)

    unit = y.mean()
    mean = boosted(x, y / unit, vx, vy / unit, objective="tweedie", tweedie_variance_power=1.5)
    out = pd.DataFrame({"mean": unit * mean})
    out["p_active"] = boosted(xa, a.astype(float), vxa, va.astype(float), objective="binary")
    for name, alpha in QUANTILES.items():
        out[name] = np.maximum(0, boosted(x, y / unit, vx, vy / unit, objective="quantile", alpha=alpha)) * unit
    return out


def standardised(*frames):
    """log1p, centred and scaled by the first frame and held within its range."""
    logs = [np.log1p(f.to_numpy()) for f in frames]
    mean, sd, low, high = logs[0].mean(0), logs[0].std(0) + 1e-9, logs[0].min(0), logs[0].max(0)
    return [(np.clip(v, low, high) - mean) / sd for v in logs]


def tweedie_glm(log, regime, seed):
    from sklearn.linear_model import LogisticRegression, TweedieRegressor
    from sklearn.metrics import log_loss, mean_tweedie_deviance
    task, power = Task(log, regime, seed), 1.5
    (x, xa, y, a), (vx, vxa, vy, va) = task.fit, task.val
    (x, vx, tx), (xa, vxa, txa) = standardised(x, vx, task.test), standardised(xa, vxa, task.test)
    unit = y.mean()

    models = [TweedieRegressor(power=power, link="log", alpha=alpha, solver="newton-cholesky", max_iter=300)
              for alpha in (1e-3, 1e-2, 1e-1, 3e-1, 1.)]
    models = [m.fit(x, y / unit) for m in models]
    glm = min(models, key=lambda m: mean_tweedie_deviance(vy / unit, m.predict(vx), power=power))
    models = [LogisticRegression(C=c, max_iter=1000).fit(xa, a) for c in (1e-3, 1e-2, 1e-1, 1.)]
    logit = min(models, key=lambda m: log_loss(va, m.predict_proba(vxa)[:, 1]))
    mu = glm.predict(tx)
    # The Tweedie law is a Poisson number of Gamma spends; its dispersion is Pearson's.
    fitted = glm.predict(x)
    phi = np.mean((y / unit - fitted) ** 2 / fitted ** power)
    rng, rate = np.random.default_rng(seed), mu ** (2 - power) / (phi * (2 - power))
    number = rng.poisson(rate, (500, log.n))
    spend, some = np.zeros(number.shape), number > 0
    spend[some] = rng.gamma(number[some] * (2 - power) / (power - 1))
    spend *= phi * (power - 1) * mu ** (power - 1)
    out = pd.DataFrame({"mean": unit * mu, "p_active": logit.predict_proba(txa)[:, 1]})
    out[list(QUANTILES)] = unit * np.quantile(spend, list(QUANTILES.values()), axis=0).T
    return out


def odds(p):
    return p / (1 - p)


def ziln(log, regime, seed):
    """Layers, loss, rate, batch and patience of google/lifetime_value, where customers are as the calibration ends."""
    cuts = CUTS[log.name, regime][:1] if regime == "B" else None
    return zero_inflated(Task(log, regime, seed, cuts), seed, ["x", "tx", "T", "mean"], rate=2e-4, batch=1024, patience=10)


def ziln_rich(log, regime, seed):
    task = Task(log, regime, seed)
    columns = [c for c in task.test if c not in BTYD]
    return zero_inflated(task, seed, columns, rate=1e-3, batch=256, patience=20, decay=1e-2, dropout=.1, cap=True)


def zero_inflated(task, seed, columns, rate, batch, patience, decay=0., dropout=0., cap=False):
    import torch
    from torch.nn import functional as F
    from scipy.stats import norm
    torch.set_num_threads(1)  # faster than more for so small a network
    torch.manual_seed(seed)
    (x, xa, y, _), (vx, _, vy, _) = task.fit, task.val
    longer = odds(x.active.mean()) / odds(xa.active.mean())  # 1 in regime B
    unit = y.mean()
    inputs = standardised(x[columns], vx[columns], task.test[columns])
    x, vx, tx = (torch.tensor(v, dtype=torch.float32) for v in inputs)
    y, vy = (torch.tensor(v / unit, dtype=torch.float32) for v in (y, vy))
    net = torch.nn.Sequential(torch.nn.Linear(len(columns), 64), torch.nn.ReLU(), torch.nn.Dropout(dropout),
                              torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)

    def loss(x, y):
        logit, mu, sigma = net(x).T
        sigma, some = F.softplus(sigma) + .05, y > 0
        zero = F.binary_cross_entropy_with_logits(logit, some.float(), reduction="sum")
        return (zero - torch.distributions.LogNormal(mu[some], sigma[some]).log_prob(y[some]).sum()) / len(y)

    least, kept, wait = np.inf, None, 0
    for _ in range(400):
        net.train()
        for rows in torch.randperm(len(y)).split(batch):
            optimiser.zero_grad()
            loss(x[rows], y[rows]).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            now = loss(vx, vy).item()
        wait += 1
        if now < least:
            least, kept, wait = now, {k: v.clone() for k, v in net.state_dict().items()}, 0
        if wait == patience:
            break
    net.load_state_dict(kept)
    with torch.no_grad():
        logit, mu, sigma = net(tx).T
        p, mu, sigma = torch.sigmoid(logit).numpy(), mu.numpy(), (F.softplus(sigma) + .05).numpy()
    # In regime A a longer horizon makes activity likelier and, spends being scaled already, what is spent then less.
    q = longer * odds(p)
    p, mu = q / (1 + q), mu - np.log(q / (1 + q) / p)
    # Uncapped it is not robust; capped, no mean is above the largest spend ever seen in training.
    positive = np.exp(np.minimum(mu + sigma ** 2 / 2, np.log(y.max().item()) if cap else 50))
    out = pd.DataFrame({"mean": unit * p * positive, "p_active": p})
    for name, alpha in QUANTILES.items():
        inside = np.clip((alpha - (1 - p)) / p, 1e-9, 1 - 1e-9)
        out[name] = np.where(alpha <= 1 - p, 0, unit * np.exp(mu + sigma * norm.ppf(inside)))
    return out


PEERS = {"past": lambda log, regime, seed: log.past(regime), "pareto-nbd": pareto_nbd, "bg-nbd": bg_nbd,
         "tweedie-glm": tweedie_glm, "ziln": ziln, "ziln-rich": ziln_rich, "lightgbm": lightgbm}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", default=DATA)
    a.add_argument("--score", default=SCORE)
    a.add_argument("--out", required=True)
    a.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    a.add_argument("--dataset", nargs="+", choices=["cdnow", "retail"], default=["cdnow", "retail"])
    a.add_argument("--regime", nargs="+", choices=["A", "B"], default=["B", "A"])
    a.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    a = a.parse_args()
    warnings.filterwarnings("ignore")
    score = protocol(a.score, a.data)
    logs = {name: Log(score, name) for name in a.dataset}
    for peer in a.peer:
        found = {}
        os.makedirs(os.path.join(a.out, peer), exist_ok=True)
        for name, regime, seed in ((n, r, s) for n in a.dataset for r in a.regime for s in a.seed):
            log, begin = logs[name], time.monotonic()
            frame = PEERS[peer](log, regime, seed).reset_index(drop=True)
            frame.insert(0, "cust", log.ids)
            frame.to_csv(os.path.join(a.out, peer, f"{name}-{regime}-{seed}.csv"), index=False, float_format="%.7g")
            m = log.evaluate(frame, regime, seed)
            found[name, regime, str(seed)] = m
            print(f"{peer} {name} {regime} {seed} ({time.monotonic() - begin:.1f} s): "
                  + " ".join(f"{k}={v:.4f}" for k, v in m.items()), flush=True)
            merge(os.path.join(a.out, "metrics.json"), peer, found)


def merge(path, peer, found):
    """Adds a peer's scores to a metrics.json, which may hold other peers', datasets', regimes' and seeds'."""
    metrics = json.load(open(path)) if os.path.exists(path) else {}
    for (name, regime, seed), m in found.items():
        metrics.setdefault(peer, {}).setdefault(name, {}).setdefault(regime, {})[seed] = m
    with open(path, "w") as f:
        json.dump(metrics, f, indent=1, sort_keys=True)


if __name__ == "__main__":
    main()
