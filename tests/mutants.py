"""Mistakes made on purpose, one at a time, in a copy of the tree: a test must catch each, within
seconds; a unit test, but for what is made of files and threads.

    make mutants                     all of them; exit 1 if one survives
    python -m tests.mutants jobs     those of one file

A test suite that is green says little; one that goes red for each of these says what it guards.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from importlib.util import cache_from_source
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 2
TEST_S_MAX = 60  # a mutant that makes a test hang is dead too
LIMIT_S = 300
# What takes longest is to start Python and import what is no part of this house: done once.
PROCESSES = get_context("spawn" if sys.platform == "win32" else "forkserver")
GREEN, RED = 0, 40  # how a process ends; 1 would be any error of its own
PRELOADED = ["pytest", "hypothesis", "numpy", "msgspec", "orjson", "pydantic", "structlog"]


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
            Mutant("P.VERIFYING, P.PREFLIGHT, P.SHADOW}", "P.VERIFYING, P.PREFLIGHT}"),
            Mutant("P.VERIFYING, P.PREFLIGHT, P.SHADOW}", "P.VERIFYING, P.SHADOW, P.CANARY}"),
            Mutant("P.SHADOW, P.CANARY, P.PROMOTING, P", "P.SHADOW, P.PROMOTING, P"),
            Mutant("LIVE = {P.PREFLIGHT, ", "LIVE = {"),
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
            Mutant("known_good=now.candidate, previous=now.known_good", "known_good=now.candidate"),
            Mutant("active=None, known_good=None, previous=None", "active=None, known_good=None"),
            Mutant("if blame is Blame.VERDICT and now.candidate != now.known_good", "if False"),
            Mutant("if blame is Blame.VERDICT and", "if True and"),
            Mutant("if ref == now.candidate and now.phase in LIVE", "if ref == now.candidate"),
            Mutant("_lawful(now, now.previous) in (None, ref)", "now.previous == ref"),
            Mutant("_lawful(now, now.previous) in (None, ref)", "now.previous in (None, ref)"),
            Mutant("_lawful(now, now.previous) in (None, ref)", "now.previous is None"),
            Mutant("now.phase in {P.STEADY, P.CANARY, *ABANDONABLE}", "True"),
            Mutant("now.phase in {P.STEADY, P.CANARY, *ABANDONABLE}", "now.phase is P.STEADY"),
            Mutant("not is_sure or ref != now.active or", "not is_sure or"),
            Mutant("now = replace(now, waiting=Desired(now.candidate))", "pass"),
            Mutant("if now.phase is not P.CANARY:", "if False:"),
            Mutant("known_good=now.previous, previous=None)", "known_good=now.previous)"),
            Mutant("known_good=now.previous, previous=None)", "previous=None)"),
            Mutant("known_good=_lawful(now, now.known_good)", "known_good=now.known_good"),
            Mutant("ref == now.active or ref.release >= now.floor", "ref.release >= now.floor"),
            Mutant("ref.release >= now.floor", "ref.release > now.floor"),
            Mutant("ref.release >= now.floor", "True"),
            Mutant("max(now.floor, release)", "release"),
            Mutant("and now.phase is not P.ROLLING_BACK:", "and True:"),
            Mutant("now.restarts + proves", "now.restarts + 1"),
            Mutant("now.phase in LIVE or now.phase is P.ROLLING_BACK", "now.phase in LIVE"),
            Mutant("(*others, ref.digest)[-QUARANTINED_MAX:]", "(*others, ref.digest)"),
            Mutant(
                "(*others, ref.digest)[-QUARANTINED_MAX:]",
                "(*others, ref.digest)[:QUARANTINED_MAX]",
            ),
            Mutant("candidate=None, waiting=None, restarts=0", "candidate=None, waiting=None"),
            Mutant("if wish.ref == now.active:", "if False:"),
            Mutant("if wish.ref.digest in now.quarantined:", "if False:"),
            Mutant("if not is_sure or ref", "if ref"),
            Mutant("{P.STEADY, P.CANARY, *ABANDONABLE}", "{P.STEADY, P.CANARY}"),
            Mutant("{P.STEADY, P.CANARY, *ABANDONABLE}", "{P.STEADY, *ABANDONABLE}"),
            Mutant("waiting=Desired(now.candidate))", "waiting=None)"),
            Mutant("if now.phase is not P.CANARY:  # else", "if True:  # else"),
            Mutant("reason=_barred(wish.ref, now.reason)", 'reason=_barred(wish.ref, "")'),
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
            Mutant("len(now), DOUBT, now.width) <= most", "len(now), DOUBT) <= 1"),
            Mutant(", DOUBT, both.ours.width)", ", DOUBT)"),
            Mutant("if bars.shadow.windows and (off", "if (off"),
            Mutant("min(progress, 0.99) if short else progress", "progress"),
        ],
    ),
    "agent/core/comparison.py": (
        ["test_comparison", "test_judge"],
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
        ["test_samples", "test_judge"],
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
            Mutant("self._is_trial(chunk.seat) and self._keeps", "self.keep and self._keeps"),
            Mutant(
                "self._is_trial(chunk.seat) and self._keeps_batches_of(chunk.seat)",
                "self._is_trial(chunk.seat)",
            ),
            Mutant("seat.ref == self.keep.trial.ref", "seat is self.keep.trial"),
            Mutant("self._scoring.account.tried += len(keys)", "pass"),
            Mutant("if self._is_trial(self._scoring.slot.seat):", "if True:"),
            Mutant("and seat.states.like(active.states)", "and True"),
            Mutant(
                "        self.end_shadow()\n        self.canary = Canary",
                "        self.canary = Canary",
            ),
            Mutant(
                "        self.end_shadow()\n        scoring = self._scoring",
                "        scoring = self._scoring",
            ),
            Mutant("return self.shadow.same", "return True"),
            Mutant("return self._cut_on() is None and (active", "return (active"),
            Mutant("(active is None or active.like(seat))", "True"),
            Mutant("self._scoring.dirty = True", "pass"),
            Mutant("self.shadow.answered(chunk, columns, run_ms)", "pass"),
            Mutant("shadow.worker_lost()", "pass"),
            Mutant("shadow.hung(now)", "pass"),
            Mutant("shadow.stood_still(gap_s)", "pass"),
            Mutant(
                "return dues if self.shadow is None else [self.shadow.next_due(), *dues]",
                "return []",
            ),
        ],
    ),
    "agent/runtime/canary.py": (
        ["test_beside"],
        [
            Mutant("zlib.crc32(model.encode())", "0"),
            Mutant("zlib.crc32(name.encode(), self._salt)", "zlib.crc32(name.encode())"),
            Mutant("zlib.crc32(name.encode(), self._salt)", "hash(name) % 2**32"),
            Mutant("< self._below", ">= self._below"),
            Mutant("share * 2**32", "share * 2**31"),
            Mutant("if len(self._keys) > known:", "if not known:"),
            Mutant("self._keys.names[known:]", "self._keys.names"),
        ],
    ),
    "agent/runtime/shadow.py": (
        ["test_beside", "test_past", "test_trials"],
        [
            Mutant("live.states.copy(), self.same", "live.states, self.same"),
            Mutant("if chunk.seat is not self.live:", "if False:"),
            Mutant("self.seat.states.follow(self.live.states, np.concatenate(behind))", "pass"),
            Mutant("np.concatenate(behind))", "keys)"),
            Mutant("self.evidence.skipped += self._rows", "pass"),
            Mutant("self._waiting.clear()", "pass"),
            Mutant("self._rows = self._bytes = 0\n        if", "if"),
            Mutant("self._out.behind = True", "pass"),
            Mutant("and not batch.behind:", "and True:"),
            Mutant("if batch.behind:", "if False:"),
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
            Mutant("wanted_windows(bars)[trial.phase]", "0"),
            Mutant("self._overrides(seat.ref)", "{}"),
        ],
    ),
    "agent/runtime/guard.py": (
        ["test_guard"],
        [
            Mutant('if verdict.word == "FAIL":', "if False:"),
            Mutant("previous in (None, seat.ref)", "previous is seat"),
            Mutant("and not self._braced:", "and False:"),
            Mutant("now - self._braced_at > BRACED_S and not seat", "not seat"),
            Mutant("now - self._braced_at > BRACED_S and not seat", "False and not seat"),
            Mutant("recent=seat.evidence.recent,", ""),
            Mutant("            self._scores = scores\n", "            pass\n"),
            Mutant("        if math.isnan(self._p99_ms):\n", "        if False:\n"),
            Mutant("if whole and seen.windows", "if seen.windows"),
            Mutant("await self._works.past.stands(seat)", "pass"),
            Mutant('self.broken = ""\n        await', "await"),
            Mutant("if over or _heard(seen) else judge.serving", "if True else judge.serving"),
            Mutant("await self._works.room.keep(loaded(self._rollout()))", "pass"),
            Mutant('self._degraded(f"{seat.ref}: {doubt}")', "pass"),
            Mutant("phase not in GUARDED:", "phase not in CALM:"),
            Mutant("if not self._is_calm:\n            return", "if False:\n            return"),
            Mutant("beside.shadow.seat is other:", "True:"),
            Mutant("while self._is_calm:", "while True:"),
        ],
    ),
    "agent/runtime/past.py": (
        ["test_past"],
        [
            Mutant("if is_new:\n            await", "if True:\n            await"),
            Mutant("active if is_new else None", "None"),
            Mutant("self._here(None if forget else seat)", "self._here(None)"),
            Mutant("        then.restore(began.states)\n", "        pass\n"),
            Mutant(
                "seat.ref == bad for seat in scoring.leased()", "False for _ in scoring.leased()"
            ),
            Mutant(
                "ring.forget(scoring.stream, scoring.model, here.seq)\n            if",
                "ring\n            if",
            ),
            Mutant("ended.tried - began.tried", "ended.tried"),
            Mutant("        ring.begin(room.scoring", "        lambda: ring.begin(room.scoring"),
            Mutant("self._ring.forget(scoring.stream, scoring.model, EVERYTHING)", "pass"),
            Mutant("drop_documents, [self._document, self._notes])", "models)"),
            Mutant("        self._room.scoring.beside.keep = None\n", ""),
            Mutant('told.get("digest") == ref.digest', "told"),
            Mutant("began is None or account.rescored is not None", "began is None"),
            Mutant("if await self._room.on_lane(self._forget_rescored):", "if False:"),
            Mutant("account.rescored = Rescored(began.seq)", "return Rescored(began.seq)"),
            Mutant("if account.rescored is None or", "if True or"),
            Mutant("began, place = noted, to", "pass"),
            Mutant("place = noted, to", "place = began, to"),
            Mutant(" and to <= (far.seq, far.at)", ""),
            Mutant("whose == (bad.digest, good.ref.digest, began.seq)", "True"),
            Mutant("if noting.is_due:", "if False:"),
            Mutant("if noting.is_due:", "if True:"),
            Mutant("if len(raw) <= self.states_bytes_max:", "if True:"),
            Mutant("max(NOTE_S, size", "max(0, size"),
        ],
    ),
    "agent/runtime/rescoring.py": (
        ["test_past"],
        [
            Mutant("if scored.release != release:", "if False:"),
            Mutant("if not then.good.takes(scored.values):", "if False:"),
            Mutant("await runs.refuse(scored.seq, scored.rows - stop)", "pass"),
            Mutant("scored.rows - stop)", "scored.rows)"),
            Mutant("self.far.refused += rows", "pass"),
            Mutant("self.far.passed(batch, rows)", "pass"),
            Mutant("await self.refuse(batch, part.rows)", "return"),
            Mutant("Again(part.release, part.seq,", "Again(part.release, part.seq + 1,"),
            Mutant("scored.seq + start", "scored.seq"),
            Mutant("unrepeated(some)", "len(some)"),
            Mutant("if scored.seq < self.seq else 0", "if scored.seq < self.seq else scored.rows"),
            Mutant("return scored.rows if scored.seq < self.seq else 0", "return 0"),
            Mutant("self._left -= rows", "pass"),
            Mutant("min(self._left, scored.rows)", "scored.rows"),
            Mutant("await runs.once_more(part)", "pass"),
            Mutant("if then.states is None else then.place", "if True else then.place"),
            Mutant("await note(then.states)", "pass"),
        ],
    ),
    "agent/runtime/handover.py": (
        ["test_scoring", "test_beside", "test_past", "test_carrying"],
        [
            Mutant(
                "account.expired += account.held - carried\n    account.held = carried\n    if",
                "account.held = carried\n    if",
            ),
            Mutant("    account.held = carried\n    if", "    if"),
            Mutant("scoring.carrying.resume(seat, account.held)", "0"),
            Mutant("seat.debt = seat.windower.pending - carried", "pass"),
            Mutant("if new.like(old):", "if True:"),
            Mutant("if new.like(old):", "if False:"),
            Mutant("and new.states.like(old.states)", "and True"),
            Mutant("and not _knows_better(scoring, new)", "and True"),
            Mutant("shadow.seat is new and shadow.judged is not new", "shadow.seat is new"),
            Mutant("new.debt = new.windower.pending - carried", "pass"),
            Mutant("carried = min(account.held, new.windower.pending)", "carried = 0"),
            Mutant(
                "    account.expired += account.held - carried\n    account.held = carried\n\n",
                "    account.held = carried\n\n",
            ),
            Mutant("    account.held = carried\n\n", "\n"),
            Mutant("good.states.forget_broken()", "pass"),
            Mutant("good.like(bad) else None", "True else None"),
            Mutant("scoring.jobs.give(bad, heir)", "scoring.jobs.give(bad, None)"),
            Mutant("scoring.slot.lease(heir)", "pass"),
            Mutant("waiting.remove(chunk)", "pass"),
            Mutant('share.reject({"rolled_back": chunk.readings})', "pass"),
            Mutant("scoring.mark(chunk, parts=-1, answered=0)", "pass"),
            Mutant('scoring.give_up(chunk, "rolled_back",', '(lambda *_: None)(chunk, "",'),
            Mutant("for _ in range(leases - kept):", "for _ in range(leases):"),
            Mutant("for _ in range(leases - kept):", "for _ in range(0):"),
        ],
    ),
    "agent/runtime/cutting.py": (
        ["test_scoring", "test_carrying"],
        [
            Mutant("scoring.reject(spans.rejected, share)", "pass"),
            Mutant("scoring.reject(spans.rejected, share)", "account.reject(spans.rejected)"),
            Mutant("if spans.rejected:", "if False:"),
            Mutant("min(seat.debt, spans.readings)", "0"),
            Mutant("min(seat.debt, spans.expired)", "0"),
            Mutant("seat.debt -= paid  # the version", "pass  # the version"),
            Mutant("    seat.debt -= paid\n", ""),
            Mutant("account.expired += expired", "pass"),
            Mutant("account.held -= covered + expired", "account.held -= covered"),
            Mutant("account.held -= covered + expired", "account.held -= expired"),
            Mutant("account.flying += covered", "account.flying += spans.readings"),
            Mutant("if len(spans.keys):", "if True:"),
            Mutant("one.parts += 1", "pass"),
            Mutant("scoring.slot.lease(part.seat)", "pass"),
        ],
    ),
    "agent/runtime/rows.py": (
        ["test_scoring", "test_beside", "test_past"],
        [
            Mutant("if answer.error:", "if False:"),
            Mutant("except UnfitError as error:", "except ZeroDivisionError as error:"),
            Mutant("if chunk.again is not None:", "if False:"),
            Mutant("if chunk.asked is not None:", "if False:"),
            Mutant("sample.add(score)", "pass"),
            Mutant("sample.add(score)", "sample.add(columns.score)"),
            Mutant("seat.evidence.errors += bad", "pass"),
            Mutant('seat.evidence.why = "the score', '_ = "the score'),
            Mutant("seat.evidence.scored(rows, waited_ms, now)", "pass"),
            Mutant("scoring.recent.add(waited_ms, rows, now)", "pass"),
            Mutant("(now - chunk.arrived) * 1000.0", "now - chunk.arrived"),
            Mutant("account.next_seq += rows\n    account", "account.next_seq += 1\n    account"),
            Mutant("account.flying -= chunk.readings", "pass"),
            Mutant("account.scored += chunk.readings", "account.scored += rows"),
            Mutant("account.last_score = wall", "pass"),
            Mutant(
                "account.last_score = wall\n    scoring.dirty = True", "account.last_score = wall"
            ),
            Mutant("scoring.trace.scored(seat.ref, first, rows, waited_ms, now)", "pass"),
            Mutant("scoring.beside.answered(chunk, columns, answer.run_ms, first)", "pass"),
            Mutant("scoring.account.next_seq += rows", "pass"),
            Mutant("+= rows\n    scoring.dirty = True", "+= rows"),
            Mutant("scoring.trace.superseded(rows)", "pass"),
            Mutant("again.far.passed(again.batch, again.rows)", "pass"),
            Mutant("again.far.passed(again.batch,", "again.far.passed(again.seq,"),
            Mutant("again.far.rows += rows", "pass"),
            Mutant('"release": again.release', '"release": 0'),
            Mutant("supersedes=supersedes", "supersedes=None"),
            Mutant(
                'waits.set_exception(RefusedError(why, 422))\n    return ""',
                "waits.set_exception(RefusedError(why, 422))\n    return why",
            ),
        ],
    ),
    "agent/runtime/questions.py": (
        ["test_questions"],
        [
            Mutant("asked.set_running_or_notify_cancel()", "pass"),
            Mutant("if seat is None:", "if False:"),
            Mutant("if output.label is not None:", "if True:"),
            Mutant("if output.score.threshold is not None:", "if True:"),
            Mutant("if release not in (None, seat.ref.release):", "if False:"),
            Mutant("if seat.manifest.window is not None or seat.states is not None:", "if False:"),
            Mutant("if seat.manifest.window is not None or seat.states", "if seat.states"),
            Mutant("window is not None or seat.states is not None:", "window is not None:"),
            Mutant("if len(rows.keys) != n:", "if False:"),
            Mutant("if not isinstance(inputs, Mapping):", "if False:"),
            Mutant("values = [values]", "pass"),
            Mutant("0 < len(columns[name]) <= ROWS_MAX", "len(columns[name]) <= ROWS_MAX"),
            Mutant("0 < len(columns[name]) <= ROWS_MAX", "0 < len(columns[name])"),
            Mutant("if len({len(column)", "if 0 and len({len(column)"),
        ],
    ),
    "agent/runtime/scoring.py": (
        ["test_scoring", "test_jobs", "test_overload", "test_beside", "test_carrying"],
        [
            Mutant("account.readings += block.readings", "account.readings += len(block)"),
            Mutant("share.readings = block.readings", "pass"),
            Mutant("self.reject(block.rejected, share)", "pass"),
            Mutant("self.reject(block.rejected, share)", "self.account.reject(block.rejected)"),
            Mutant("self.reject(rows.rejected, share)", "pass"),
            Mutant("self.reject(rows.rejected, share)", "self.account.reject(rows.rejected)"),
            Mutant('self.reject({"no_model": len(block)}, share)', "pass"),
            Mutant(
                'self.reject({"no_model": len(block)}, share)',
                'self.account.reject({"no_model": len(block)})',
            ),
            Mutant("block = self.overload.thinned(block, self.waiting.rows)", "pass"),
            Mutant("self.last_reject |= seat.featurizer.last_reject", "pass"),
            Mutant(" - sum(spans.rejected.values())", ""),
            Mutant("self.carrying.pushed(seat, block, now, share, account.held)", "pass"),
            Mutant("self.carrying.waited(now, share, self.account.held)", "pass"),
            Mutant("self.beside.feed(block, now)", "pass"),
            Mutant("self.overload.relieve(self)", "pass"),
            Mutant("share.parts -= 1\n        self.shares", "pass\n        self.shares"),
            Mutant("share.parts += parts", "pass"),
            Mutant("share.answered += answered", "pass"),
            Mutant("self._halves.add if share.is_half", "self._halves.discard if share.is_half"),
            Mutant("if seat is None or old is None:", "if old is None:"),
            Mutant("self.carrying.begin(seat, self._opened, self.account.held)", "pass"),
            Mutant("self.beside.swap(old, seat)", "pass"),
            Mutant("self.dirty, self.restoring = True, False", "self.restoring = False"),
            Mutant("self.dirty, self.restoring = True, False", "self.dirty = True"),
            Mutant("trace.swap(self.account.next_seq)", "pass"),
            Mutant("self.trace = trace", "pass"),
            Mutant("return seats | self.beside.seats()", "return seats"),
            Mutant("if not self.jobs.resend(now):", "if self.jobs.resend(now) is None:"),
            Mutant("if not self.jobs.may_send(seat):", "if False:"),
            Mutant("self.waiting.rows < self.limits.rows_max:", "True:"),
            Mutant("if now < ripe:", "if False:"),
            Mutant("self.ripe = ripe", "pass"),
            Mutant("self.ripe = None\n", "pass\n"),
            Mutant("seat.leases += leases", "pass"),
            Mutant("self.slot.lease(chunk.seat)", "pass"),
            Mutant("chunk.seat.evidence.errors += len(chunk)", "pass"),
            Mutant("chunk.seat.evidence.why = why", "pass"),
            Mutant("if why and chunk.orphan:", "if False:"),
            Mutant('self.give_up(chunk, "rolled_back", why)', "pass"),
            Mutant('self.give_up(chunk, "run", why)', "pass"),
            Mutant("self.mark(chunk, parts=-1, answered=-1)", "pass"),
            Mutant("self.slot.release(chunk.seat)", "pass"),
            Mutant("self.account.flying -= chunk.readings", "pass"),
            Mutant("self.account.reject({reason: chunk.readings})", "pass"),
            Mutant("self.last_reject[reason] = why", "pass"),
            Mutant("quiet=not (self._halves or self._answered)", "quiet=True"),
            Mutant("self.dirty |= taken is not None", "pass"),
            Mutant("self.shares.forget() or self.dirty", "self.dirty"),
            Mutant("self.shares, self.carrying.kept)", "self.shares)"),
            Mutant("*self.beside.dues(now)", ""),
            Mutant("times.append(self.slot.seat.windower.next_due())", "pass"),
            Mutant("self.waiting.chunks or self.jobs)", "self.jobs)"),
            Mutant("self.waiting.chunks or self.jobs)", "self.waiting.chunks)"),
            Mutant("return self.restoring or ", "return "),
            Mutant("return self.restoring or ", "return self.restoring and "),
            Mutant("self.beside.stood_still(gap_s)", "pass"),
            Mutant("self.jobs.stood_still(gap_s)", "pass"),
            Mutant("self.beside.hung(now)", "pass"),
            Mutant("self.beside.worker_lost(seat)", "pass"),
        ],
    ),
    "agent/runtime/overload.py": (
        ["test_overload"],
        [
            Mutant('self._policy == "block" and', "True and"),
            Mutant("waiting >= ROWS_WAITING_MAX", "False"),
            Mutant("waiting >= ROWS_WAITING_MAX", "waiting > ROWS_WAITING_MAX"),
            Mutant('self._policy != "sample" or', "False or"),
            Mutant("or not doublings", "or False"),
            Mutant("block.rejected | {REASON: gone}", "block.rejected"),
            Mutant("block.rejected | {REASON: gone}", "{REASON: gone}"),
            Mutant("if doublings <= DOUBLINGS_MAX:", "if True:"),
            Mutant("self._seen[groups.unique] += groups.sizes", "pass"),
            Mutant("% 2**doublings == 0", "% 2 == 0"),
            Mutant('self._policy == "drop_oldest"', "True"),
            Mutant("- len(waiting.chunks[0]) >= self._rows", ">= self._rows"),
            Mutant("share.reject({REASON: chunk.readings})", "pass"),
            Mutant("scoring.mark(chunk, parts=-1, answered=0)", "pass"),
            Mutant("scoring.give_up(chunk, REASON, WHY)", "pass"),
            Mutant("scoring.slot.release(chunk.seat)", "pass"),
        ],
    ),
    "agent/runtime/jobs.py": (
        ["test_jobs", "test_scoring", "test_past"],
        [
            Mutant("self.sent > 0.0 and self.answer is None", "self.sent > 0.0"),
            Mutant("if seat.lost or seat.parked", "if seat.parked"),
            Mutant("seat.lost or seat.parked or", "seat.lost or"),
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
            Mutant("now < self._due(job)", "now <= self._due(job)"),
            Mutant("job.chunk.seat.run_s_max(self._run_s_max)", "self._run_s_max"),
            Mutant("seat.session.kill()", "pass"),
            Mutant("seat.evidence.hangs += 1", "pass"),
            Mutant("if not seat.session.device_lost:", "if True:"),
            Mutant("seat.deaths += 1", "pass"),
            Mutant(
                "job.chunk.states or seat.states\n        states = known",
                "seat.states\n        states = known",
            ),
            Mutant("states = chunk.states or seat.states\n", "states = seat.states\n"),
            Mutant("and not answer.error:", "and True:"),
            Mutant("if answer.job < 0:", "if False:"),
            Mutant("job.sent += gap_s", "pass"),
            Mutant("job.sent, job.tries = 0.0, job.tries - 1", "job.sent = 0.0"),
            Mutant("seat.ran(answer.run_ms)", "pass"),
            Mutant("job.sent = now  # its end", "pass  # its end"),
            Mutant("except UnfitError as error:", "except ZeroDivisionError as error:"),
        ],
    ),
    "agent/runtime/accounts.py": (
        ["test_accounts", "test_shares", "test_scoring", "test_past"],
        [
            Mutant("self.rejected.get(reason, 0) + n", "n"),
            Mutant("            if n:\n    ", "            if True:\n    "),
            Mutant("pending=self.held + self.flying", "pending=self.held"),
            Mutant("rejected=dict(self.rejected)", "rejected=self.rejected"),
            Mutant('account.readings -= undone["readings"]', "pass"),
            Mutant("account.reject({reason: -n for", "account.reject({reason: n for"),
            Mutant("account.rejected.items() if n}", "account.rejected.items()}"),
            Mutant("account.expired = unscored", "account.expired += unscored"),
            Mutant(" - account.scored - sum(", " - sum("),
            Mutant(" - sum(account.rejected.values())", ""),
            Mutant("if redelivered:", "if not redelivered:"),
            Mutant("min(kept, unscored), 0", "min(kept, unscored), account.flying"),
            Mutant("min(kept, unscored)", "0"),
            Mutant("min(kept, unscored)", "kept"),
            Mutant("unscored - account.held", "unscored"),
            Mutant('"kept": kept', '"kept": 0'),
            Mutant("AHEAD: shares.done().hex()", 'AHEAD: ""'),
            Mutant("if seq == self.seq else 0)", "if False else 0)"),
            Mutant('document["rescored"] = Rescored(**rescored)', "pass"),
            Mutant("kept - self.rows - self.refused", "kept - self.rows"),
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
    "agent/runtime/shares.py": (
        ["test_shares", "test_accounts", "test_scoring", "test_carrying"],
        [
            Mutant("0 < self.answered < self.parts", "self.answered < self.parts"),
            Mutant("0 < self.answered < self.parts", "0 < self.answered"),
            Mutant("self.rejected.get(reason, 0) + n", "n"),
            Mutant("            hold.parts += 1\n", "            pass\n"),
            Mutant("if not self.ahead or not burst.ids:", "if not self.ahead:"),
            Mutant("self.ahead[same * size :] if same", "self.ahead if same"),
            Mutant('if same == len(burst.payloads) else b""', "if True else b''"),
            Mutant("self._open[0].parts == 0", "True"),
            Mutant("share.settled = True", "pass"),
            Mutant("share.hold.parts -= 1", "pass"),
            Mutant("self._done.append(share.hold)", "pass"),
            Mutant("self._done[0].settled", "True"),
            Mutant("return len(self._done) < before", "return False"),
            Mutant("total.readings += share.readings", "pass"),
            Mutant("total.reject(share.rejected)", "pass"),
            Mutant("*bursts, *(share.had for", "*(share.had for"),
            Mutant("*(share.had for share in self._open), ", ""),
            Mutant(", self.ahead])", "])"),
        ],
    ),
    "agent/runtime/carrying.py": (
        ["test_carrying"],
        [
            Mutant("!= list(range(len(rows)))", "is None"),
            Mutant("self._keys.index(name) != n for", "False for"),
            Mutant("_begin_anew(seat)", "pass"),
            Mutant("self.kept = min(held, seat.windower.pending)", "self.kept = held"),
            Mutant("windower is self._windower and states is self._states", "False"),
            Mutant("self.kept = step.held", "pass"),
            Mutant("steps, anew = [], True", "anew = True"),
            Mutant("elif quiet:", "elif True:"),
            Mutant("self._states.changes()\n            elif", "pass\n            elif"),
            Mutant("self._keys.names[self._names :]", "[]"),
            Mutant("self._names = len(self._keys)", "pass"),
            Mutant("self._queue[0].share.settled", "True"),
            Mutant("if step.about != _about(seat):", "if False:"),
            Mutant("seat.featurizer.remembers = step.remembers", "pass"),
            Mutant("seat.windower.due(step.now)", "pass"),
            Mutant("(seat.states.apply if n else seat.states.restore)", "seat.states.restore"),
            Mutant("seat.windower.rearm()", "pass"),
            Mutant("self._log_bytes += len(body)", "pass"),
        ],
    ),
    "agent/core/evidence.py": (
        ["test_evidence", "test_judge"],
        [
            Mutant("if self.latest.rows >= LATEST_ROWS:", "if False:"),
            Mutant("self.latest.rows >= LATEST_ROWS", "self.latest.rows > LATEST_ROWS"),
            Mutant("self.latest.add(ours, theirs)", "pass"),
            Mutant("return broken", "return 0"),
            Mutant("return 2**63", "return RSS_SLACK_BYTES"),
            Mutant("return max(said", "return min(said"),
            Mutant(" + RSS_SLACK_BYTES", ""),
            Mutant("self.windows if seen is None else seen.rows", "self.windows"),
            Mutant("self.recent.add(ms, rows, now)", "pass"),
        ],
    ),
    "agent/adapters/sqlite/gaps.py": (
        ["test_outbox_tables"],
        [
            Mutant("old.last_seq + 1 == first or", "old.last_seq < first or"),
            Mutant("or there >= GAPS_MAX", ""),
            Mutant("            there += 1\n", ""),
            Mutant("max(last, old.last_seq)", "last"),
            Mutant("old.rows + rows", "last - old.first_seq + 1"),
            Mutant("AND model=? AND reason=? ORDER", "AND model=? AND ?!='' ORDER"),
            Mutant("if now.rows > gap.rows:", "if False:"),
            Mutant("gap.last_seq + 1 if gap.stream", "gap.first_seq if gap.stream"),
            Mutant("rows=now.rows - gap.rows", "rows=now.rows"),
            Mutant("begun[0] + begun[1] == first", "True"),
            Mutant("row.rows or 1", "row.rows"),
            Mutant("done.append((*begun, *key))", "pass"),
        ],
    ),
    "agent/adapters/sqlite/statements.py": (
        ["test_outbox_tables", "test_seals"],
        [
            Mutant("in reversed(range(PRIORITIES))", "in range(PRIORITIES)"),
            Mutant("if excess <= 0:", "if excess < row.bytes:"),
            Mutant("row.at >= limit", "row.at > limit"),
            Mutant("                unknown.clear()\n", ""),
            Mutant(" if row.id not in but", ""),
            Mutant("(first, first + settled)", "(first, span_of(priority)[1])"),
            Mutant("INSERT OR IGNORE INTO meta", "REPLACE INTO meta"),
            Mutant("row.id - first", "row.id"),
            Mutant("newest = max(newest, row.id - first)", "newest = 0"),
            Mutant(
                "            if not math.isnan(row.at):\n                latest",
                "            if 1:\n                latest",
            ),
            Mutant("if not seals.message_holds(topic, payload, seal):", "if False:"),
            Mutant("labels if seals.labels_hold(labels, seal) else", "labels or"),
            Mutant("    condemn(connection, [i for (i,) in strays])\n", ""),
            Mutant("DELETE FROM meta WHERE name='unsealed'", "DELETE FROM meta WHERE name=''"),
            Mutant('meta.get("unsealed", 0)', "0"),
            Mutant("coalesce(topic, '')", "topic"),
            Mutant("kept > DEAD_LETTERS_MAX or", ""),
            Mutant(" or size > DEAD_LETTERS_BYTES_MAX", ""),
            Mutant("DELETE FROM dead_letter WHERE id<=?", "DELETE FROM dead_letter WHERE id=?"),
            Mutant(" AND length(payload)<=?", " AND ?"),
            Mutant('_count(connection, "dead_letters", len(found))', "pass"),
            Mutant('_count(connection, "given_up", given_up)', "pass"),
            Mutant("runs[-1][1] + 1:", "runs[-1][1] + 2:"),
            Mutant("in sorted(ids)", "in ids"),
        ],
    ),
    "agent/adapters/sqlite/beside.py": (
        ["test_outbox_tables"],
        [
            Mutant("    for whose in entry.carried:", "    for whose in ():"),
            Mutant("    _account(connection, entry)\n    for whose in", "    for whose in"),
        ],
    ),
    "agent/adapters/sqlite/seals.py": (
        ["test_seals"],
        [
            Mutant("id & {(1 << PRIORITY_BITS) - 1}", "0 & {PRIORITY_BITS}"),
            Mutant("or not isinstance(payload, bytes)", ""),
            Mutant("not isinstance(topic, str) or", ""),
            Mutant("return found == _NONE or _part(found, 0)", "return _part(found, 0)"),
            Mutant("return found == _NONE or _part(found, 1)", "return _part(found, 1)"),
            Mutant("_part(found, 0) == _of_message(topic, payload)", "bool(_part(found, 0))"),
            Mutant("_part(found, 1) == _of_labels(labels)", "bool(_part(found, 1))"),
            Mutant(
                'zlib.crc32(payload, zlib.crc32(topic.encode() + b"\\n"))', "zlib.crc32(payload)"
            ),
            Mutant("tuple(labels)", "tuple(labels)[:4]"),
            Mutant(" or len(found) != _SEAL.size", ""),
        ],
    ),
    "agent/adapters/sqlite/tails.py": (
        ["test_outbox_tables"],
        [
            Mutant("                self.behind[priority] = True\n", ""),
            Mutant("in reversed(range(PRIORITIES))", "in range(PRIORITIES)"),
            Mutant("popitem(last=False)", "popitem()"),
            Mutant("self.let_go_bytes += weight(gone)", "pass"),
            Mutant(
                "            if gone is not None:\n                self._bytes -=",
                "            if 0:\n                _ =",
            ),
            Mutant("if len(found) == records_max:", "if False:"),
            Mutant("None if found else priority", "priority"),
            Mutant("min(self.oldest(priority) - 1", "min(self.oldest(priority)"),
            Mutant(", span_of(priority)[0] + settled)", ", span_of(priority)[1])"),
        ],
    ),
    "agent/adapters/sqlite/packing.py": (
        ["test_outbox_tables", "test_seals"],
        [
            Mutant("or run.next_seq != first or", "or"),
            Mutant("or run.size + len(body) > PACK_BYTES_MAX", ""),
            Mutant("or not labels.rows or i in but", "or i in but"),
            Mutant("or not labels.rows or i in but", "or not labels.rows"),
            Mutant("first_seq=members[0][1].first_seq", "first_seq=last.first_seq"),
            Mutant("i, last = members[-1]", "i, last = members[0][0], members[-1][1]"),
            Mutant("for i, _ in members[:-1]]", "for i, _ in members]"),
            Mutant("sum(one.rows for _, one in members)", "last.rows"),
            Mutant("seals.message_holds(topic, body, seal) and", ""),
            Mutant("and seals.labels_hold(labels, seal)", ""),
            Mutant("seals.seal(run.topic, body, labels), i", "None, i"),
            Mutant("size += (count - 1) * (len", "size += count * (len"),
            Mutant("records += count - 1", "records += count"),
            Mutant("begin[priority] = i + 1", "pass"),
            Mutant("self._begin = packed.begin or self._begin", "pass"),
        ],
    ),
    "agent/adapters/sqlite/blame.py": (
        ["test_blame"],
        [
            Mutant("        if is_damage(error):\n            return True\n", ""),
            Mutant("        if not is_unread(error):\n            return False\n", ""),
            Mutant("if now - self._last > self._pause_s:", "if True:"),
            Mutant("if now - self._last > self._pause_s:", "if self._first < 0.0:"),
            Mutant("        self._last = now\n", ""),
            Mutant("now - self._first >= self", "now - self._first > self"),
            Mutant("    sqlite3.SQLITE_IOERR_CORRUPTFS,  # what it makes of EIO\n", ""),
            Mutant("SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}", "SQLITE_CORRUPT}"),
            Mutant("& 0xFF in _WEATHER", "in _WEATHER"),
            Mutant("& 0xFF in _DAMAGE", "in _DAMAGE"),
            Mutant("    sqlite3.SQLITE_READONLY,\n", ""),
            Mutant('"sqlite_errorcode", sqlite3.SQLITE_ERROR)', '"sqlite_errorcode", 10)'),
        ],
    ),
    "agent/adapters/sqlite/doubts.py": (
        ["integration/test_disk_says_no"],
        [
            Mutant('.open("a", ', '.open("w", '),
            Mutant('" ".join(why.split())', "why"),
            Mutant("_file(path).unlink(missing_ok=True)", "pass"),
        ],
    ),
    "agent/adapters/sqlite/opening.py": (
        [
            "integration/test_disk_says_no",
            "integration/test_lost_store",
            "integration/test_store_schema",
        ],
        [
            Mutant('if found != "ok":', "if False:"),
            Mutant("if not schema.settle(connection):", "if schema.settle(connection) is None:"),
            Mutant("        check(connection)\n", ""),
            Mutant('if "locked" in str(error):', "if False:"),
            Mutant("    doubts.forget(path)  # first: they are", "    # they are"),
            Mutant("if len(doubted) < doubts.DOUBTS_MAX:", "if True:"),
            Mutant("if len(doubted) < doubts.DOUBTS_MAX:", "if False:"),
            Mutant("        if doubts.noted(path):", "        if False:"),
            Mutant('doubts.note(path, f"it could', 'str(f"it could'),
            Mutant(
                "        raise _blamed(error, path) from error\n    connection",
                "        raise\n    connection",
            ),
            Mutant('decode(errors="replace")', "decode()"),
            Mutant('f"{path.name}.bad"', 'f"{path.name}.old"'),
            Mutant("    if _is_damage(error, path):", "    if True:"),
        ],
    ),
    "agent/adapters/sqlite/database.py": (
        [
            "integration/test_group_commit",
            "contract/test_journal",
            "integration/test_disk_says_no",
        ],
        [
            Mutant("orders += self._orders", "orders = [*self._orders, *orders]"),
            Mutant("if orders:  # the disk said no", "if False:"),
            Mutant("due = time.monotonic() + self._gather_s", "due = 0.0"),
            Mutant("all(order.future is None for order in self._orders)", "True"),
            Mutant(
                "            return self._squeeze(orders)\n",
                "            return self._not_done(orders, error)\n",
            ),
            Mutant(
                "            order.future.set_exception(error)\n        return []",
                "        return []",
            ),
            Mutant("is_ours=order.future is None)", "is_ours=True)"),
            Mutant("is_ours=order.future is None)", "is_ours=False)"),
            Mutant("return [order for order in orders if order.future is None]", "return []"),
            Mutant("[order for order in orders if order.future is None]", "orders"),
            Mutant('execute("ROLLBACK")', 'execute("COMMIT")'),
            Mutant("self._closing = True  # nobody", "pass  # nobody"),
            Mutant('doubts.note(self.path, f"found', 'str(f"found'),
            Mutant("if is_damage or not blame.is_weather(error):", "if is_damage:"),
            Mutant("if is_damage or not blame.is_weather(error):", "if is_damage and is_ours:"),
            Mutant("self._trouble.errors + 1", "1"),
            Mutant("is_over = time.monotonic() > self._troubled_until", "is_over = False"),
            Mutant("is_over = time.monotonic() > self._troubled_until", "is_over = True"),
            Mutant("            doubts.forget(self.path)", "            pass"),
            Mutant("if time.monotonic() > self._believed_at:", "if True:"),
            Mutant(
                "            self._connection.close()\n            raise error",
                "            raise error",
            ),
            Mutant("        elif not is_ours and not is_damage:\n            return\n", ""),
        ],
    ),
    "agent/adapters/sqlite/outbox.py": (
        ["contract/test_outbox", "contract/test_outbox_seals"],
        [
            Mutant("if self._telling.has_some:", "if False:"),
            Mutant("                    self._pinned = frozenset(i for i, _ in found)\n", ""),
            Mutant("bool(found or spoilt)", "False"),
            Mutant("            self._condemn(spoilt)\n", ""),
            Mutant("        self._leave(ids)\n        self._database", "        self._database"),
            Mutant("            self._leaving.update(ids)\n", ""),
            Mutant("self._settled, self._pinned | self._leaving)", "self._settled, ())"),
            Mutant(
                "        self._tails.drop(row.id for row in gone)",
                "        tuple(row.id for row in gone)",
            ),
            Mutant(
                "                self._settled = ids[-1] & ((1 << PRIORITY_BITS) - 1)",
                "                pass",
            ),
            Mutant("                    self._records += 1\n", ""),
            Mutant("self._bytes += statements.weight(record)", "pass"),
            Mutant(
                "        self._is_evicting = False\n        self._lost(lost)",
                "        self._lost(lost)",
            ),
            Mutant("self._given_up += lost.rows", "pass"),
            Mutant("self._telling.grow(lost.gaps)", "pass"),
            Mutant("self._dead_letters += len(lost.gone)", "pass"),
            Mutant("self._records -= gone[0]", "pass"),
            Mutant("self._bytes -= gone[1]", "pass"),
            Mutant("self._newest += len(ids)", "pass"),
            Mutant("        self._doorbell.quiet()", "        pass"),
            Mutant("if self._ageing.is_due():", "if False:"),
            Mutant("self._telling.leave(some)", "pass"),
            Mutant("        self._leave([record_id])\n", ""),
            Mutant("        database.watch(self._doorbell.ring)\n", ""),
            Mutant("self._bytes > self._room and", "False and"),
            Mutant("            self._records -= len(lost.gone)\n", ""),
        ],
    ),
    "agent/adapters/mqtt/packets.py": (
        ["test_packets", "test_mqtt_sorting"],
        [
            Mutant("if size > packet_bytes_max:", "if size >= packet_bytes_max:"),
            Mutant("if stop > end:", "if stop >= end:"),
            Mutant(
                "                if head & 0xF0 == CONNACK:\n                    return pos, 2\n",
                "",
            ),
            Mutant("at > stop or after_topic == start", "after_topic == start"),
            Mutant("or after_topic == start or head & 0x04", "or head & 0x04"),
            Mutant("start or head & 0x04 or mid", "start or mid"),
            Mutant(' or mid == b"\\0\\0":', ":"),
            Mutant("if head & 0x09:", "if head & 0x08:"),
            Mutant("if head & 0x09:", "if head & 0x01:"),
            Mutant("                    at += skip\n", "                    at += skip + 1\n"),
            Mutant("into.with_mid += with_mid\n", "into.with_mid = with_mid\n"),
            Mutant("into.skip = max(0, stop - end)", "into.skip = stop - end"),
            Mutant("into.beyond += 1", "pass"),
            Mutant("    if end < at:\n        return pos, at - pos\n", ""),
            Mutant("if head & 0xF0 != PUBLISH or head & 0x04", "if head & 0x04"),
            Mutant("or head & 0x04 or lies", "or lies"),
            Mutant(' or data[after_topic:at] == b"\\0\\0":', ":"),
            Mutant("(byte & 127) << shift", "byte << shift"),
            Mutant("in (0, 7, 14, 21):", "in (0, 7, 14, 21, 28):"),
            Mutant("            column.clear()", "            pass"),
            Mutant("raise _no_publish(data[pos]) from None", "return pos, 2"),
            Mutant("into.with_mid += bool(mid)", "pass"),
            Mutant("(end >= start == after_topic)", "False"),
            Mutant("lies = at > stop or ", "lies = "),
        ],
    ),
    "agent/adapters/mqtt/ledger.py": (
        ["test_mqtt_sorting"],
        [
            Mutant("self._former.pop(mid, None)", "self._former.get(mid)"),
            Mutant("if known and known[0] == its_key", "if known"),
            Mutant("            self._replay.clear()  # the", "            pass  # the"),
            Mutant("self._former.keys() & set(mids)", "()"),
            Mutant("while self._tokens and self._tokens[0].confirmed:", "while self._tokens:"),
            Mutant("            token.mids.clear()", "            pass"),
            Mutant("            token.shared.clear()", "            pass"),
            Mutant("                self._expect(token.keys, token)", "                pass"),
            Mutant("                token.confirmed = True", "                pass"),
            Mutant("        self._expect(keys, _EARLIER)\n", "        pass\n"),
            Mutant("self._known() if token.confirmed]", "self._known() if False]"),
            Mutant("or len(keys) % KEY_BYTES", ""),
            Mutant("or len(mark) < at + filter_bytes", ""),
            Mutant("if version != _VERSION or", "if"),
            Mutant('blake2b(topic + b"\\0" + payload', "blake2b(payload"),
            Mutant("        self._tokens = still_open", "        pass"),
        ],
    ),
    "agent/adapters/mqtt/sorting.py": (
        ["test_mqtt_sorting"],
        [
            Mutant("(found.odd or found.beyond or replays)", "(found.odd or replays)"),
            Mutant("(found.odd or found.beyond or replays)", "(found.beyond or replays)"),
            Mutant("(found.odd or found.beyond or replays)", "(found.odd or found.beyond)"),
            Mutant("and len(kind := kinds.pop()) == 1", "and len(kind := kinds.pop()) > 0"),
            Mutant("if head & RETAIN and self._session_kept:", "if head & RETAIN:"),
            Mutant("if head & RETAIN and self._session_kept:", "if False:"),
            Mutant("self.strays += 1", "pass"),
            Mutant("(head & DUP or any(", "(any("),
            Mutant("(head & DUP or any(", "(head & DUP and any("),
            Mutant("if not wanted and all(owner.accepted for owner in owners):", "if not wanted:"),
            Mutant("                settled += owners\n", ""),
            Mutant("elif len(wanted) + len(owners) > 1:", "elif len(wanted) > 1:"),
            Mutant("owners[0].mids.append(mid)", "pass"),
            Mutant("                token.shared.add(mid)", "                pass"),
            Mutant("self.repeats += 1", "pass"),
            Mutant("                self._ledgers[stream].add(token)\n", ""),
            Mutant("ledger.used(mids)", "pass"),
            Mutant("keys if all(mids) else b", "keys or b"),
            Mutant("token.mids.remove(mid)", "pass"),
            Mutant("            ledger.add(token)\n", ""),
            Mutant("or token.accepted:", "or False:"),
            Mutant("            if not token.shared:\n", "            if True:\n"),
            Mutant(
                "                if all(owner.accepted for owner in owners):\n",
                "                if True:\n",
            ),
            Mutant("owner.shared.discard(mid)", "pass"),
            Mutant("for owner in owners if not owner.shared]", "for owner in owners]"),
            Mutant("oversize=len(payloads))", "oversize=1)"),
            Mutant("        self._session_kept = kept\n", ""),
            Mutant(
                'return "" if topic_filter in self.subscriptions else topic_filter', 'return ""'
            ),
            Mutant("if len(self._routes) > TOPICS_MAX:", "if False:"),
            Mutant("place = stream, payload is BEYOND", "place = stream, False"),
        ],
    ),
    "agent/core/quantiles.py": (
        ["test_quantiles"],
        [
            Mutant("if not len(ascending):", "if False:"),
            Mutant("share * (len(ascending) - 1)", "share * len(ascending)"),
            Mutant("np.sort(rows, axis=1)", "np.sort(rows, axis=0)"),
            Mutant("~np.isnan(rows), axis=1", "np.isfinite(rows) | True, axis=1"),
            Mutant("(numbers - 1) // 2", "numbers // 2"),
            Mutant("ordered[at, numbers // 2]", "ordered[at, (numbers - 1) // 2]"),
        ],
    ),
    "agent/core/open_inference.py": (
        ["test_open_inference"],
        [
            Mutant("not 0 <= json_bytes <= len(body)", "not 0 <= json_bytes"),
            Mutant("if ident is not None and not isinstance(ident, str):", "if False:"),
            Mutant("if name in inputs:", "if False:"),
            Mutant("    if rest:\n", "    if False:\n"),
            Mutant("    numbers[~np.isfinite(score)] = None\n", ""),
            Mutant("list(score.shape)", "[len(score)]"),
            Mutant("if name not in given:", "if False:"),
            Mutant("if asked.ident is not None:", "if True:"),
            Mutant("for name in asked.wanted or given", "for name in given"),
            Mutant("not isinstance(datatype, str) or ", ""),
            Mutant("or size % dtype.itemsize", ""),
            Mutant("not 0 <= size <= len(rest)", "not 0 <= size"),
            Mutant("rest = rest[size:]", "pass"),
            Mutant("([n], [n, 1])", "([n], [1, n])"),
            Mutant("if not whole or", "if"),
            Mutant("type(size) is not int or ", ""),
            Mutant("if not _are(values, dtype):", "if False:"),
            Mutant("and len(row) == 1 else row", "and row else row"),
            Mutant("if known.width == 1 else", "if True else"),
            Mutant("value is None or isinstance", "isinstance"),
            Mutant("if not isinstance(data, list) or", "if"),
        ],
    ),
    "agent/adapters/web/inference.py": (
        ["integration/test_web_inference"],
        [
            Mutant("path.startswith(PATHS) and ", ""),
            Mutant("path.startswith(PATHS) and path.endswith(VERBS)", "path.startswith(PATHS)"),
            Mutant("503 if silence else 200", "200"),
            Mutant("200 if is_ready else 503", "200"),
            Mutant("and shown.last[0].ready", ""),
            Mutant("and bool(active.provider)", ""),
            Mutant("(None, active.release)", "(None, 2, active.release)"),
            Mutant("if kind and kind in FORM_TYPES:", "if False:"),
            Mutant("if kind and kind in FORM_TYPES:", "if kind in FORM_TYPES:"),
            Mutant("if waiting >= WAITING_MAX:", "if False:"),
            Mutant("            waiting -= 1\n", "            pass\n"),
            Mutant("release=_release(request))", "release=None)"),
            Mutant("_json_bytes(request))", "None)"),
            Mutant("404: 404, ", ""),
        ],
    ),
    "agent/adapters/files/leisure.py": (
        ["integration/test_leisure"],
        [
            Mutant("if self._rest:", "if True:"),
            Mutant("if self._rest:", "if False:"),
            Mutant("min(REST_S_MAX, ", "max(0, "),
            Mutant("self._rest * (time", "1.0 * (time"),
            Mutant("AT_LEISURE = Pace(REST)", "AT_LEISURE = Pace(0.0)"),
        ],
    ),
    "agent/worker/heap.py": (
        ["integration/test_worker_leaks", "integration/test_without_posix"],
        [
            Mutant("    gc.collect()\n", ""),
            Mutant("    _spare_what_lasts()\n", ""),
            Mutant("@functools.cache\n", ""),
            Mutant("AttributeError, TypeError)", "AttributeError)"),
            Mutant("malloc_trim(0)", "malloc_usable_size(None)"),
        ],
    ),
}


def survives(tree: Path, name: str, mutant: Mutant, tests: list[str]) -> bool:
    """Whether the tests stay green with `mutant` in the copy."""
    path = tree / name
    source = path.read_text(encoding="utf-8")
    path.write_text(mistaken(name, source, mutant), encoding="utf-8")
    compiled = Path(cache_from_source(str(path)))  # two mistakes may be of one second and size
    compiled.unlink(missing_ok=True)
    judging = PROCESSES.Process(target=_judge, args=(tree, tests))  # type: ignore[attr-defined]
    judging.start()
    judging.join(LIMIT_S)
    if judging.exitcode is None:
        judging.kill()
        judging.join()
    path.write_text(source, encoding="utf-8")
    compiled.unlink(missing_ok=True)
    assert judging.exitcode in {GREEN, RED, -9}, f"its tests did not even begin: {tree}/told.txt"
    return bool(judging.exitcode == GREEN)


def _judge(tree: Path, tests: list[str]) -> None:
    """In a process of its own: run `tests` against the copy in `tree`, and end as they do."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("agent", "tests")]:
        del sys.modules[name]  # they are those of the tree this was started in
    sys.path[0] = str(tree)
    sys.dont_write_bytecode = False  # what has no mistake in it is compiled once
    os.chdir(tree)
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    options = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    options += ["-W", "ignore", "-o", f"timeout={TEST_S_MAX}"]
    with Path(tree, "told.txt").open("w", encoding="utf-8") as told, redirect_stdout(told):
        code = pytest.main([*options, *map(_path, tests)])
    sys.exit(GREEN if code == pytest.ExitCode.OK else RED)


def _path(test: str) -> str:
    """A name alone is that of a unit test."""
    return f"tests/{test}.py" if "/" in test else f"tests/unit/{test}.py"


def mistaken(name: str, source: str, mutant: Mutant) -> str:
    """`source` with the mistake in it; raises where it is not one, or is none any more."""
    assert mutant.right in source, f"{name} has no {mutant.right!r} any more: see to this mutant"
    wrong = source.replace(mutant.right, mutant.wrong, 1)
    compile(wrong, name, "exec")  # what is no Python would prove nothing by failing
    return wrong


def attempts(wanted: list[str]) -> Iterator[tuple[str, list[str], Mutant]]:
    """Of each file whose name holds one of `wanted` (none: of all): as it is, then each mistake.

    All of them are looked at before the first is tried: a list that is not true is told at once.
    """
    chosen = [
        (name, tests, mutant)
        for name, (tests, mutants) in MUTANTS.items()
        if not wanted or any(word in name for word in wanted)
        for mutant in (NO_MISTAKE, *mutants)
    ]
    for name, _, mutant in chosen:
        mistaken(name, (ROOT / name).read_text(encoding="utf-8"), mutant)
    return iter(chosen)


def main(wanted: list[str]) -> int:
    """Try them, some at once, each in a copy of its own; what survived is told again at the end."""
    copies: SimpleQueue[Path] = SimpleQueue()
    alive: list[str] = []
    tried = 0

    def outcome(name: str, tests: list[str], mutant: Mutant) -> bool:
        copy = copies.get()
        try:
            return survives(copy, name, mutant, tests)
        finally:
            copies.put(copy)

    chosen = list(attempts(wanted))
    PROCESSES.set_forkserver_preload(PRELOADED)
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for n in range(AT_ONCE):
            copies.put(_copied(Path(folder, str(n))))
        for (name, _, mutant), lives in zip(
            chosen, pool.map(outcome, *zip(*chosen, strict=True)), strict=True
        ):
            told = f"{name}: {mutant.right!r} -> {mutant.wrong!r}"
            if mutant is NO_MISTAKE:
                assert lives, f"{name}: its tests are red as it is"
                continue
            tried += 1
            if lives:
                alive.append(told)
            print(f"{'SURVIVED' if lives else 'killed':8}  {told}", flush=True)
    print(f"{tried - len(alive)} of {tried} killed", *alive, sep="\n")
    return 1 if alive else 0


def _copied(tree: Path) -> Path:
    leave = shutil.ignore_patterns("__pycache__")
    for part in ("agent", "tests"):
        shutil.copytree(ROOT / part, tree / part, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
