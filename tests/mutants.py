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
        ["test_judge", "test_guard", "test_trials"],
        [
            Mutant("seen.errors > bars.probation.errors", "seen.errors >= bars.probation.errors"),
            Mutant("seen.errors > bars.probation.errors", "False"),
            Mutant("if seen.hangs:", "if False:"),
            Mutant("seen.rss_bytes > seen.rss_bytes_max", "False"),
            Mutant("if progress >= 1.0 and not short:", "if progress >= 1.0:"),
            Mutant("if progress >= 1.0 and not short:", "if not short:"),
            Mutant("if seen.seconds >= bar.max:", "if False:"),
            Mutant(
                '{bar.max:g} s"\n        return Verdict("FAIL"',
                '{bar.max:g} s"\n        return Verdict("WATCH"',
            ),
            Mutant('told}", proven=False)', 'told}")'),
            Mutant("seen.windows >= wanted else", "seen.windows > wanted else"),
            Mutant("shares.append(seen.windows / bar.windows)", "pass"),
            Mutant("shares.append(seen.seconds / bar.time)", "pass"),
            Mutant("if min(shares) >= 1.0", "if max(shares) >= 1.0"),
            Mutant("both.rows < ROWS_WORTH_A_LOOK", "False"),
            Mutant("for both in (seen.comparison, seen.latest)", "for both in (seen.comparison,)"),
            Mutant("rows, bar.agreement) < DOUBT", "rows, bar.agreement) < 0"),
            Mutant("rows, bar.agreement) < DOUBT", "rows, bar.agreement) < 0.5"),
            Mutant("apart - error > bar.score_distance", "apart > bar.score_distance"),
            Mutant("apart - error > bar.score_distance", "False"),
            Mutant("both.agreement < bar.agreement", "False"),
            Mutant(" * ratio + LATENCY_SLACK_MS", " * ratio"),
            Mutant("len(parts) < SLICES_SLOW", "False"),
            Mutant("if any(part.quantile(share) <= limit", "if all(part.quantile(share) <= limit"),
            Mutant("<= RUN_RATIO * theirs.quantile(0.5)", "<= 0 * theirs.quantile(0.5)"),
            Mutant("min(len(before), len(now)) < ROWS_WORTH_A_LOOK", "False"),
            Mutant("len(now), DOUBT) <= most", "len(now), DOUBT) <= 1"),
        ],
    ),
    "agent/core/comparison.py": (
        ["test_judge", "test_judge_chance", "test_beside", "test_trials"],
        [
            Mutant("finite == expected", "False"),
            Mutant("expected & ~finite", "~finite"),
            Mutant("expected & ~finite", "expected & finite"),
            Mutant("self.theirs.add(theirs.score[both])", "self.theirs.add(ours.score[both])"),
            Mutant("self.run_ours.add(ours_ms, 1, now)", "self.run_ours.add(theirs_ms, 1, now)"),
            Mutant("return self.rows / max(1.0, effect)", "return float(self.rows)"),
            Mutant("self.rtol * np.abs(other)", "self.rtol"),
            Mutant("map(eq, ours.alarm, theirs.alarm)", "map(eq, ours.alarm, ours.alarm)"),
        ],
    ),
    "agent/core/samples.py": (
        ["test_judge", "test_judge_chance"],
        [
            Mutant("kept = places < self._rows_max", "kept = places < 0"),
            Mutant("self.seen += len(rows)", "self.seen += 1"),
            Mutant('other, at, side="right"', 'other, at, side="left"'),
            Mutant("return max(_distance", "return min(_distance"),
            Mutant("(n + m) / (n * m)", "(n + m) / (n + m)"),
            Mutant(
                "if not n or not m:\n        return 1.0", "if not n or not m:\n        return 0.0"
            ),
            Mutant("agreed >= rows * share", "agreed >= rows"),
            Mutant("total += term", "total = term"),
        ],
    ),
    "agent/runtime/beside.py": (
        ["test_beside", "test_past", "test_trials"],
        [
            Mutant("self._scoring.slot.let_go(shadow.seat)", "pass"),
            Mutant("seat.states = active.states", "pass"),
            Mutant("self._scoring.take_from(canary.seat, self._scoring.slot.seat)", "pass"),
            Mutant("self._scoring.slot.let_go(canary.seat)", "pass"),
            Mutant(
                "        self.end_shadow()\n        self.canary = None", "        self.end_shadow()"
            ),
            Mutant("chunk.seat is self.keep.trial and self._keeps_batches", "self._keeps_batches"),
            Mutant("is self.keep.trial and self._keeps_batches", "is self.keep.trial"),
            Mutant("self._scoring.account.tried += len(keys)", "pass"),
            Mutant("if self._scoring.slot.seat is keep.trial:", "if True:"),
        ],
    ),
    "agent/runtime/shadow.py": (
        ["test_beside", "test_past", "test_trials"],
        [
            Mutant("seat.states = live.states.copy()", "seat.states = live.states"),
            Mutant("if chunk.seat is not self.live:", "if False:"),
            Mutant("self.seat.states.follow(self.live.states, chunk.keys)", "pass"),
            Mutant("self.evidence.skipped += rows", "pass"),
            Mutant("if self._rows + rows > WAITING_ROWS_MAX or", "if False or"),
            Mutant("or self._credit_s < 0:", "or False:"),
            Mutant("self._credit_s -= answer.run_ms / 1000.0", "pass"),
            Mutant("seat.states.scatter(batch.keys, seat.named(answer.outputs))", "pass"),
            Mutant("if mine_judged else (theirs, columns)", "if True else (theirs, columns)"),
            Mutant("self.evidence.errors += broken", "pass"),
            Mutant("self.seat.session.kill()", "pass"),
            Mutant("if batch.tries < TRIES_MAX:", "if True:"),
        ],
    ),
    "agent/runtime/trials.py": (
        ["test_trials"],
        [
            Mutant("not bars.shadow.windows:", "False:"),
            Mutant(
                "            if not passed:  # else it goes on, so", "            if False:  # so"
            ),
            Mutant("        if not seat.like(active):\n            return\n", ""),
            Mutant(
                "            if not passed:  # else it answers on", "            if False:  # on"
            ),
            Mutant("if not (bars.probation.windows or bars.probation.time):", "if True:"),
            Mutant("if verdict.proven else UnprovenError(verdict.why)", "if True else None"),
            Mutant("self.progress = verdict.progress", "pass"),
            Mutant("seen.seconds = seen.now - began", "pass"),
            Mutant("seat.evidence.rss_bytes = await", "_ = await"),
            Mutant("return good\n\n    # ----", "return None\n\n    # ----"),
        ],
    ),
    "agent/runtime/guard.py": (
        ["test_guard"],
        [
            Mutant('if verdict.word == "FAIL":', "if False:"),
            Mutant("previous in (None, seat.ref)", "previous is seat"),
            Mutant("takes_long and not self._braced", "False"),
            Mutant("and not takes_long and not seat.evidence.hangs", "and False"),
            Mutant("recent=seat.evidence.recent,", ""),
            Mutant("            self._scores = scores\n", "            pass\n"),
            Mutant("        if math.isnan(self._p99_ms):\n", "        if False:\n"),
            Mutant("if whole and seen.windows", "if seen.windows"),
            Mutant("await self._works.past.stands(seat)", "pass"),
            Mutant('self.broken = ""\n        await', "await"),
            Mutant("if over or _heard(seen) else judge.serving", "if True else judge.serving"),
            Mutant("await self._works.room.keep(loaded(self._rollout()))", "pass"),
            Mutant('self._degraded(f"{seat.ref}: {doubt}")', "pass"),
        ],
    ),
    "agent/runtime/past.py": (
        ["test_past"],
        [
            Mutant("if is_new:\n            await", "if True:\n            await"),
            Mutant(
                "active.states_then = active.states.copy()", "active.states_then = active.states"
            ),
            Mutant(
                "seat.ref == bad for seat in scoring.leased()", "False for _ in scoring.leased()"
            ),
            Mutant("self._ring.forget(scoring.stream, scoring.model, until)", "pass"),
            Mutant("self._ring.forget(scoring.stream, scoring.model, EVERYTHING)", "pass"),
            Mutant(
                "await asyncio.to_thread(self._journal.drop_documents, [self._document])", "pass"
            ),
            Mutant("scoring.beside.keep = None\n        return", "return"),
            Mutant('told.get("digest") == ref.digest', "told"),
        ],
    ),
    "agent/runtime/rescoring.py": (
        ["test_past"],
        [
            Mutant("if scored.release != release:", "if False:"),
            Mutant("if not good.takes(scored.values):", "if False:"),
            Mutant("            result.refused += scored.rows\n", ""),
            Mutant("good.states_then.copy() if good.states_then", "None if good.states_then"),
            Mutant("result.rows += await", "_ = await"),
            Mutant("result.refused += len(part.times)", "pass"),
            Mutant("kept - self.rows - self.refused", "kept - self.rows"),
            Mutant("Again(part.release, part.seq,", "Again(part.release, part.seq + 1,"),
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
