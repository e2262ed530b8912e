"""Mistakes made on purpose, one at a time, in a copy of the tree: a unit test must catch each.

    make mutants                     all of them; exit 1 if one survives
    python -m tests.mutants jobs     those of one file

A test suite that is green says little; one that goes red for each of these says what it guards.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 120  # a mutant that makes the tests hang is dead too


class Mutant(NamedTuple):
    """The first `right` in the file becomes `wrong`."""

    right: str
    wrong: str


NO_MISTAKE = Mutant("", "")

# file: (the tests that guard it, the mistakes)
MUTANTS: dict[str, tuple[list[str], list[Mutant]]] = {
    "agent/core/rollout.py": (
        ["test_rollout", "test_driver"],
        [
            Mutant("P.PROBATION: (P.STEADY, P.ROLLING_BACK)", "P.PROBATION: (P.STEADY, P.STEADY)"),
            Mutant(
                "P.PROMOTING: (P.PROBATION, P.ROLLING_BACK)", "P.PROMOTING: (P.PROBATION, P.STEADY)"
            ),
            Mutant("P.SHADOW: (P.CANARY, P.STEADY)", "P.SHADOW: (P.PROMOTING, P.STEADY)"),
            Mutant(
                "P.ROLLING_BACK: (P.STEADY, P.ROLLING_BACK)", "P.ROLLING_BACK: (P.STEADY, P.STEADY)"
            ),
            Mutant("P.RETIRING: (P.STEADY, P.RETIRING)", "P.RETIRING: (P.STEADY, P.STEADY)"),
            Mutant("P.PREFLIGHT, P.SHADOW, P.CANARY}", "P.PREFLIGHT, P.SHADOW}"),
            Mutant("P.PROMOTING, P.PROBATION}", "P.PROMOTING}"),
            Mutant(
                "(event.phase, event.ref) != (now.phase, now.candidate)",
                "event.phase is not now.phase",
            ),
            Mutant(
                "(event.phase, event.ref) != (now.phase, now.candidate)",
                "event.ref != now.candidate",
            ),
            Mutant("now.phase in LIVE and not now.clean", "now.phase in LIVE"),
            Mutant("now.phase in LIVE and not now.clean", "not now.clean"),
            Mutant("now = replace(now, clean=False)", "pass"),
            Mutant("now.restarts > RESTARTS_MAX and", "now.restarts >= RESTARTS_MAX and"),
            Mutant("now.restarts > RESTARTS_MAX and", "False and"),
            Mutant("and now.phase in LIVE:\n        why", "and True:\n        why"),
            Mutant("replace(now, clean=True)", "now"),
            Mutant("wanted.add(now.known_good)", "pass"),
            Mutant(
                "now.known_good, now.previous, now.candidate)", "now.known_good, now.candidate)"
            ),
            Mutant("return replace(now, waiting=None), None", "return now, None"),
            Mutant("return replace(now, waiting=wish), None", "return now, None"),
            Mutant("P.STEADY or now.phase in ABANDONABLE", "P.STEADY"),
            Mutant("now = replace(now, active=now.candidate)", "pass"),
            Mutant("now = replace(now, active=now.known_good)", "pass"),
            Mutant("known_good=now.candidate, previous=before", "known_good=now.candidate"),
            Mutant("active=None, known_good=None, previous=None", "active=None, known_good=None"),
            Mutant("if blame is Blame.VERDICT and now.candidate != now.known_good", "if False"),
            Mutant("if blame is Blame.VERDICT and", "if True and"),
            Mutant("if ref == now.candidate and now.phase in LIVE", "if ref == now.candidate"),
            Mutant("now.previous not in (None, ref)", "now.previous != ref"),
            Mutant("(*others, ref.digest)[-QUARANTINED_MAX:]", "(*others, ref.digest)"),
            Mutant(
                "(*others, ref.digest)[-QUARANTINED_MAX:]",
                "(*others, ref.digest)[:QUARANTINED_MAX]",
            ),
            Mutant("candidate=None, waiting=None, restarts=0", "candidate=None, waiting=None"),
            Mutant("if wish.ref == now.active:", "if False:"),
            Mutant("if wish.ref.digest in now.quarantined:", "if False:"),
        ],
    ),
    "agent/core/judge.py": (
        ["test_judge"],
        [
            Mutant("seen.errors > bar.errors", "seen.errors >= bar.errors"),
            Mutant("seen.errors > bar.errors", "False"),
            Mutant("seen.latency.rows >= ROWS_FOR_P99", "seen.latency.rows > ROWS_FOR_P99"),
            Mutant("seen.latency.rows >= ROWS_FOR_P99", "True"),
            Mutant(" + LATENCY_SLACK_MS", ""),
            Mutant("* bar.latency_ratio", "* 2"),
            Mutant("quantile(0.99)", "quantile(1.0)"),
            Mutant("quantile(0.99)", "quantile(0.9)"),
            Mutant("if min(shares) >= 1.0", "if max(shares) >= 1.0"),
            Mutant("if min(shares) >= 1.0", "if min(shares) > 1.0"),
            Mutant("shares.append(seen.windows / bar.windows)", "pass"),
            Mutant("shares.append(seen.seconds / bar.time)", "pass"),
            Mutant('"WATCH", progress=min(shares)', '"WATCH", progress=max(shares)'),
        ],
    ),
    "agent/runtime/scoring.py": (
        ["test_scoring", "test_jobs"],
        [
            Mutant("account.readings += block.readings", "account.readings += len(block)"),
            Mutant("share.readings = block.readings", "pass"),
            Mutant("self._reject(block.rejected, share)", "pass"),
            Mutant("self._reject(block.rejected, share)", "self._reject(block.rejected, None)"),
            Mutant("self._reject(rows.rejected, share)", "pass"),
            Mutant("self._reject(rows.rejected, share)", "self._reject(rows.rejected, None)"),
            Mutant('self._reject({"no_model": len(block)}, share)', "pass"),
            Mutant(
                'self._reject({"no_model": len(block)}, share)',
                'self._reject({"no_model": len(block)}, None)',
            ),
            Mutant("self._reject(spans.rejected, share)", "pass"),
            Mutant("self._reject(spans.rejected, share)", "self._reject(spans.rejected, None)"),
            Mutant('share.reject({"rolled_back": chunk.readings})', "pass"),
            Mutant(" - sum(spans.rejected.values())", ""),
            Mutant("account.flying += covered", "account.flying += spans.readings"),
            Mutant("account.held -= covered + expired", "account.held -= covered"),
            Mutant("account.expired += expired", "pass"),
            Mutant("min(seat.debt, spans.readings)", "0"),
            Mutant("min(seat.debt, spans.expired)", "0"),
            Mutant("seat.debt -= paid  # the version", "pass  # the version"),
            Mutant("one.parts += 1", "pass"),
            Mutant("share.parts -= 1\n        self.shares", "pass\n        self.shares"),
            Mutant("share.parts += parts", "pass"),
            Mutant("share.answered += answered", "pass"),
            Mutant("self._halves.add if share.is_half", "self._halves.discard if share.is_half"),
            Mutant("self.account.expired += self.account.held\n", "pass\n"),
            Mutant("self.account.expired += self.account.held - carried", "pass"),
            Mutant("new.debt = new.windower.pending - carried", "pass"),
            Mutant("self.restoring = False", "pass"),
            Mutant("trace.swap(self.account.next_seq)", "pass"),
            Mutant("if not self.jobs.resend(now):", "if self.jobs.resend(now) is None:"),
            Mutant("if not self.jobs.may_send(seat):", "if False:"),
            Mutant("if self._waiting.rows < self.limits.rows_max:", "if True:"),
            Mutant("seat.leases += leases", "pass"),
            Mutant("good.like(bad) else None", "True else None"),
            Mutant("self.jobs.give(bad, heir)", "self.jobs.give(bad, None)"),
            Mutant("self.slot.lease(heir)", "pass"),
            Mutant("for _ in range(leases - kept):", "for _ in range(leases):"),
            Mutant("for _ in range(leases - kept):", "for _ in range(0):"),
            Mutant("asked.set_running_or_notify_cancel()", "pass"),
            Mutant("chunk.seat.evidence.errors += len(chunk)", "pass"),
            Mutant("if why and chunk.orphan:", "if False:"),
            Mutant('self._give_up(chunk, "rolled_back", why)', "pass"),
            Mutant('self._give_up(chunk, "run", why)', "pass"),
            Mutant("self.account.flying -= chunk.readings", "pass"),
            Mutant("self.account.reject({reason: chunk.readings})", "pass"),
            Mutant("self.restoring or self._waiting.rows >= ROWS_WAITING_MAX", "self.restoring"),
            Mutant("return self.restoring or ", "return "),
            Mutant(
                "self._waiting.rows >= ROWS_WAITING_MAX", "self._waiting.rows > ROWS_WAITING_MAX"
            ),
        ],
    ),
    "agent/runtime/jobs.py": (
        ["test_jobs", "test_scoring"],
        [
            Mutant("self.sent > 0.0 and self.answer is None", "self.sent > 0.0"),
            Mutant("if seat.lost or seat.jobs_out", "if seat.jobs_out"),
            Mutant("seat.jobs_out >= seat.jobs_max", "seat.jobs_out > seat.jobs_max"),
            Mutant("job.sent = now\n        job.tries", "job.tries"),
            Mutant("        job.tries += 1\n", ""),
            Mutant("        seat.jobs_out += 1\n", ""),
            Mutant("                    seat.jobs_out -= 1\n", ""),
            Mutant("if job.number == answer.job and", "if"),
            Mutant("and job.out and job.chunk.seat is seat", "and job.chunk.seat is seat"),
            Mutant("and job.out and job.chunk.seat is seat", "and job.out"),
            Mutant("        bad.jobs_out = 0\n", ""),
            Mutant("job.sent, job.tries = 0.0, 0", "job.sent = 0.0"),
            Mutant("                    job.chunk.orphan = True\n", ""),
            Mutant("                    good.leases += 1\n", ""),
            Mutant("        if seat.lost:\n            return\n", ""),
            Mutant(
                "        seat.lost = True\n        seat.jobs_out = 0\n",
                "        seat.lost = True\n",
            ),
            Mutant("seat.evidence.deaths += 1", "pass"),
            Mutant("job.sent = 0.0\n            if", "if"),
            Mutant("                job.tries -= 1\n", "                pass\n"),
            Mutant("job.tries >= self._tries_max", "job.tries > self._tries_max"),
            Mutant("job.tries >= self._tries_max", "False"),
            Mutant("            running = False\n", ""),
            Mutant("now >= due:", "now > due:"),
            Mutant("job.chunk.seat.session.kill()", "pass"),
            Mutant("job.sent = now  # its end", "pass  # its end"),
            Mutant("except UnfitError as error:", "except ZeroDivisionError as error:"),
        ],
    ),
    "agent/runtime/accounts.py": (
        ["test_accounts", "test_scoring"],
        [
            Mutant("self.rejected.get(reason, 0) + n", "n"),
            Mutant("            if n:\n    ", "            if True:\n    "),
            Mutant("pending=self.held + self.flying", "pending=self.held"),
            Mutant("rejected=dict(self.rejected)", "rejected=self.rejected"),
            Mutant('account.readings -= undone["readings"]', "pass"),
            Mutant("account.reject({reason: -n for", "account.reject({reason: n for"),
            Mutant("account.rejected.items() if n}", "account.rejected.items()}"),
            Mutant("account.expired = account.readings", "account.expired += account.readings"),
            Mutant(" - account.scored - sum(", " - sum("),
            Mutant(" - sum(account.rejected.values())", ""),
            Mutant("if redelivered:", "if not redelivered:"),
            Mutant("account.held = account.flying = 0", "account.held = 0"),
        ],
    ),
    "agent/runtime/holds.py": (
        ["test_holds", "test_scoring"],
        [
            Mutant("parts: int = 1", "parts: int = 0"),
            Mutant("self._open[0].parts == 0", "True"),
            Mutant("self._open[0].parts == 0", "self._open[0].parts <= 1"),
            Mutant("while self._open and", "if self._open and"),
            Mutant("self._open.popleft()", "self._open.pop()"),
            Mutant("self._open.append(hold)", "self._open.appendleft(hold)"),
        ],
    ),
}


def survives(tree: Path, name: str, mutant: Mutant, tests: list[str]) -> bool:
    """Whether the tests stay green with `mutant` in the copy."""
    path = tree / name
    source = path.read_text(encoding="utf-8")
    assert mutant.right in source, f"{name} has no {mutant.right!r} any more: see to this mutant"
    mistaken = source.replace(mutant.right, mutant.wrong, 1)
    compile(mistaken, name, "exec")  # what is no Python would prove nothing by failing
    path.write_text(mistaken, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
    command += ["-W", "ignore", *(f"tests/unit/{test}.py" for test in tests)]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, timeout=LIMIT_S, check=False)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(source, encoding="utf-8")


def main(wanted: list[str]) -> int:
    """Try every mutant of the files whose name holds one of `wanted` (none: of all)."""
    alive = tried = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        leave = shutil.ignore_patterns("__pycache__")
        for part in ("agent", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=leave)
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name, (tests, mutants) in MUTANTS.items():
            if wanted and not any(word in name for word in wanted):
                continue
            assert survives(tree, name, NO_MISTAKE, tests), f"{name}: its tests are red as it is"
            for mutant in mutants:
                tried += 1
                lives = survives(tree, name, mutant, tests)
                alive += lives
                word = "SURVIVED" if lives else "killed"
                print(f"{word:8}  {name}: {mutant.right!r} -> {mutant.wrong!r}", flush=True)
    print(f"{tried - alive} of {tried} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
