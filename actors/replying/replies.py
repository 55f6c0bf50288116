"""The replies of one session: which is current, what each answers, and the transcripts they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.drafts import Draft, Drafts, Prompt
from actors.replying.prompts import Prompts
from actors.replying.recent_replies import RecentReplies
from actors.replying.reply import Reply, ReplyPlan
from actors.replying.requests import CommittedTurn, ReplyRequest, ReplyTerms
from actors.replying.response import ResponsePhase
from actors.replying.turn_report import report
from actors.stages.degradation import SessionDegradation
from actors.stages.retry import StageFailures, contained
from actors.stages.session_context import SessionContext
from rejoinder.core.measuring.waterfall import Marks
from rejoinder.core.reply.answer_cache import CacheScope
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseStatus

# Responses outside the conversation that may run beside the current one.
MAX_OUT_OF_BAND = 4


class Replies:
    """Not thread-safe; its tasks live in the session's group."""

    def __init__(self, context: SessionContext, group: asyncio.TaskGroup, ended: Callable[[Reply], None]) -> None:
        """`ended` is told of every reply that was heard to its end, failed or was cut."""
        self.current: Reply | None = None
        self.recent = RecentReplies()
        self._context = context
        self._services = services = context.services
        self._on_end = ended
        self._group = group
        self._unanswered: CommittedTurn | None = None
        self._prompts = Prompts(context, group)
        self.summaries = self._prompts.summaries
        self._running: dict[Reply, asyncio.Task[None]] = {}
        self.degradation = SessionDegradation(services)
        self._drafts = Drafts(services.draft_budget, services.metrics, self.degradation)

    def expect(self, turn: CommittedTurn) -> None:
        """A turn was committed; its transcript is on the way."""
        self._unanswered = turn
        self._prompts.expect(turn)

    # -- starting and ending ---------------------------------------------------------------------------------------

    def draft(self, revision: int, end_of_turn: EndOfTurnRequest) -> None:
        """Begin the answer to what is being heard, and let nothing of it out."""
        request = self.default_request()
        prompt = partial(self._prompts.current, request)
        self._drafts.begin(revision, end_of_turn, self._terms(request), prompt, carry_out=self._start_draft)

    def _start_draft(self, draft: Draft) -> None:
        prompt = partial(self._prompts.for_draft, draft)
        plan = self._plan(draft.terms, prompt, draft.end_of_turn.failures, lambda: draft.turn)
        draft.reply = Reply(plan, self._context, Marks(), drafted=True)
        draft.task = self._group.create_task(self._run(draft.reply, previous=None))

    def read_ahead(self, transcript: str = "", *, whole: bool = False) -> None:
        """Let the language model read what it will be asked, as far as that is known: the caller has said so much, and
        with `whole` perhaps no more.
        """
        if not self._drafts.drafting:
            self._prompts.prefill.start(self._prompts.current(self.default_request(), transcript), whole=whole)

    def discard(self) -> None:
        """Drop the draft: there is more to hear, or nobody to answer."""
        self._drafts.discard()

    def start(self, requested: ReplyRequest | None = None, draft: int | None = None) -> None:
        """Answer what was committed last; `order`: because the client asked for it, so it hears of it at once.

        `draft`: the revision whose draft is the answer, if there is one and it still holds.
        """
        turn: CommittedTurn | None = None
        request = requested or self.default_request()
        if not request.out_of_band:
            turn, self._unanswered = self._unanswered, None
        if turn and self._release_draft(turn, request, draft):
            return
        failures = turn.end_of_turn.failures if turn else StageFailures(self._services.metrics)
        prompt = partial(self._prompts.for_turn, turn, request, requested=requested is not None)
        plan = self._plan(self._terms(request), prompt, failures, lambda: turn)
        reply = Reply(plan, self._context, turn.marks if turn else Marks())
        if turn:
            turn.waited_for_end(self._services.clock())
        previous = None
        if not request.out_of_band:
            previous = self._running.get(self.current) if self.current else None
            self.current = reply
        if requested:
            reply.response.open()
        self._launch(reply, self._group.create_task(self._run(reply, previous)))

    def _release_draft(self, turn: CommittedTurn, request: ReplyRequest, revision: int | None) -> bool:
        """Let the turn's draft out, if there is one that answers it, and nothing else is being said (an apology)."""
        idle = self.current is None or self.current not in self._running
        terms, prompt = self._terms(request), partial(self._prompts.current, request)
        draft = self._drafts.answer(revision if idle else None, terms, prompt)
        if draft is None:
            return False
        draft.release(turn, self._services.clock())
        self.current = draft.reply
        self._launch(draft.reply, draft.task)
        return True

    def apologise(self, failures: StageFailures) -> None:
        """Speak the apology if `trouble` lasts and nothing else is being said."""
        if self.current is not None and self.current in self._running:
            return
        plan = self._plan(self._terms(self.default_request()), partial(_until_over, failures), failures, lambda: None)
        self.current = Reply(plan, self._context, Marks())
        self._launch(self.current, self._group.create_task(self._run(self.current, previous=None)))

    def cut(self, reason: str, interrupted_at: float | None) -> None:
        """Silence what is being said and stop its engines; `since`: when the caller's interrupting speech arrived."""
        late_s = None if interrupted_at is None else self._services.clock() - interrupted_at
        self.current = None
        for reply in self._speaking:
            stop_s = late_s if reply.stop_s is None else reply.stop_s
            if stop_s is not None and reply.response.phase is not ResponsePhase.UNSEEN:
                self._services.metrics.interrupted(stop_s)
            self._stop(reply, reason, stop_s)

    def pause(self, interrupted_at: float | None) -> None:
        """Silence what is being said, until `resume` or `cut`; `since`: when the caller's speech arrived."""
        stop_s = 0.0 if interrupted_at is None else self._services.clock() - interrupted_at
        for reply in self._speaking:
            reply.pause(stop_s)

    def resume(self) -> None:
        """Go on with what was paused."""
        for reply in self._speaking:
            reply.resume()

    @property
    def _speaking(self) -> list[Reply]:
        """The replies of the conversation that are under way."""
        return [reply for reply in self._running if reply.plan.events.conversation_id is not None]

    @property
    def audible(self) -> bool:
        """Whether a reply of the conversation is being heard."""
        return self.current is not None and self.current.audible

    def cancel(self, response_id: str | None) -> bool:
        """response.cancel: True if there was a reply to cancel, of which the client then hears the end."""
        for reply in list(self._running):
            named = reply is self.current if response_id is None else reply.plan.events.response_id == response_id
            if reply.open and named:
                reply.response.open()
                self._stop(reply, "client_cancelled")
                return True
        return False

    @property
    def out_of_band_count(self) -> int:
        return sum(1 for reply in self._running if reply.open and reply.plan.events.conversation_id is None)

    def _stop(self, reply: Reply, reason: str, stop_s: float | None = None) -> None:
        reply.cut(reason, stop_s)
        self._running[reply].cancel()

    def _launch(self, reply: Reply, task: asyncio.Task[None]) -> None:
        self._running[reply] = task
        # Not at the task's own end: one that is cancelled before its first step has none.
        task.add_done_callback(lambda _: self._ended(reply))
        self.recent.add(reply)

    async def _run(self, reply: Reply, previous: asyncio.Task[None] | None) -> None:
        with contained("reply", self._services.metrics, what=f"a reply of {self._context.id}") as body:
            if previous:
                await asyncio.wait({previous})
                reply.fillers.disable_filler()
            await reply.run()
        if body.broke:
            reply.abandon()

    def _ended(self, reply: Reply) -> None:
        del self._running[reply]
        self.summaries.prepare(self._context.conversation.messages())
        self._on_end(reply)

    # -- what a reply answers --------------------------------------------------------------------------------------

    def default_request(self) -> ReplyRequest:
        """The order that the session's configuration makes; a response.create changes single fields of it."""
        config = self._context.config
        settings = self._services.settings.conversation
        return ReplyRequest(
            spoken=config.output_modality == "audio",
            instructions=config.instructions or settings.instructions,
            max_tokens=config.max_output_tokens or settings.max_reply_tokens,
            format=config.output_format,
        )

    def _terms(self, request: ReplyRequest) -> ReplyTerms:
        return ReplyTerms(request, self._context.config.voice, self._context.config.speed)

    def _plan(
        self,
        terms: ReplyTerms,
        prompt: Callable[[], Awaitable[Prompt | None]],
        failures: StageFailures,
        answered_turn: Callable[[], CommittedTurn | None],
    ) -> ReplyPlan:
        """`answered`: the turn, as far as it is known when the reply ends."""
        request, stamp = terms.request, self._context.stamp
        events = server.ResponseEvents(
            response_id=stamp("resp"),
            item_id=stamp("item"),
            conversation_id=None if request.out_of_band else f"conv_{self._context.id}",
            spoken=request.spoken,
            metadata=request.metadata,
            voice=terms.voice,
            format=request.format,
        )

        def report_end(reply: Reply, status: ResponseStatus) -> Json:
            return report(self._services, answered_turn(), reply, status)

        return ReplyPlan(
            events,
            terms=terms,
            prompt=prompt,
            report=report_end,
            failures=failures,
            degradation=self.degradation,
            cache_scope=CacheScope(self._context.tenant, self._context.config.tool_state),
            answered_turn=answered_turn,
        )


async def _until_over(failures: StageFailures) -> None:
    """A reply with nothing to say but the apology: it ends when the trouble does."""
    await failures.wait_until_over()
