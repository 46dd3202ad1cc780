"""`mobilepack chat`."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from mobilepack.cli import options, packages, render

if TYPE_CHECKING:
    from mobilepack.commands.chat import Chat, ChatStats

HELP_LINE = "say something; /reset forgets, /quit or Ctrl-D ends"


@click.command(
    epilog="""\b
Example
  mobilepack chat
  mobilepack chat --prompt "What is 7 + 5?"
  echo "What is 7 + 5?" | mobilepack chat out/mine/xnnpack --temperature 0.7 --top-p 0.9
"""
)
@packages.package_argument
@click.option("-p", "--prompt", metavar="TEXT", help="Say this once, print the answer, and end.")
@click.option("--system", metavar="TEXT", help="System message. Default: the chat template's own.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 always takes the best token.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Sample from the best tokens that hold this share of the probability.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampler.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="TOKENS",
    help="Longest answer.",
)
@click.option("--raw", is_flag=True, help="Feed the text as it is, without the chat template.")
@options.threads_option
@options.timeout_option(600)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    package: Path | None,
    prompt: str | None,
    system: str | None,
    temperature: float,
    top_p: float,
    seed: int,
    max_new_tokens: int,
    raw: bool,
    threads: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Talk to a package on this machine.

    Answers go to stdout, the rest to stderr. Without --prompt it reads messages line by line.
    --json takes one message, from --prompt or from stdin.
    """
    from mobilepack.commands.chat import Chat, ChatOptions

    chosen = packages.existing_or_built(package, quiet=as_json)
    asked = ChatOptions(
        system=system,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        raw=raw,
        threads=threads,
        timeout_s=timeout_s,
    )
    emulated = emulated_text(chosen)
    if emulated:
        render.message(emulated)
    with Chat.open(chosen, asked) as chat:
        if as_json:
            text = sys.stdin.read() if prompt is None else prompt
            answer_as_document(chat, text)
        elif prompt is not None:
            answer(chat, prompt)
        else:
            converse(chat)


def emulated_text(package: Path) -> str:
    """Return what must be known of the speed of a program that is emulated here, else nothing."""
    from mobilepack.contract.package import open_package

    if open_package(package).manifest.plan.backend != "qnn":
        return ""
    return "on Qualcomm's HTP emulator: seconds per token here, NOT REPRESENTATIVE of any phone"


def answer_as_document(chat: Chat, text: str) -> None:
    """Print one answer with its statistics as JSON."""
    reply = "".join(chat.say(text))
    render.document(
        "chat",
        {
            "prompt": text,
            "answer": reply,
            "load_ms": chat.load_ms,
            "stats": render.plain(chat.stats),
        },
    )


def answer(chat: Chat, text: str) -> None:
    """Print one answer as it comes, then its speed; an interruption stops the generation."""
    with closing(cast("Generator[str, None, None]", chat.say(text))) as pieces:
        try:
            for piece in pieces:
                click.echo(piece, nl=False)
                sys.stdout.flush()
        finally:
            click.echo()
    if chat.stats is not None:
        render.message(click.style(stats_text(chat.stats), dim=True))


def stats_text(stats: ChatStats) -> str:
    """Return one line on an answer."""
    text = (
        f"[{stats.prompt_tokens} prompt tokens at {stats.prefill_tok_per_s:.0f} tok/s,"
        f" first answer after {stats.ttft_ms:.0f} ms,"
        f" {stats.new_tokens} tokens at {stats.decode_tok_per_s:.0f} tok/s]"
    )
    if not stats.stopped:
        text += " cut off at --max-new-tokens or the end of the context"
    if stats.dropped_messages:
        text += f"; forgot {stats.dropped_messages} old messages: the context is full"
    return text


def converse(chat: Chat) -> None:
    """Answer line after line until the end of stdin."""
    interactive = sys.stdin.isatty()
    if interactive:
        render.message(HELP_LINE)
    while True:
        text = _read_line(interactive)
        if text is None or text == "/quit":
            return
        if text == "/reset":
            chat.reset()
        elif text:
            _answer_until_interrupted(chat, text)


def _read_line(interactive: bool) -> str | None:
    if interactive:
        click.echo(click.style("> ", bold=True), nl=False, err=True)
    text = sys.stdin.readline()
    if not text and interactive:
        click.echo(err=True)
    return text.strip() if text else None


def _answer_until_interrupted(chat: Chat, text: str) -> None:
    try:
        answer(chat, text)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        render.message("stopped; Ctrl-C again to leave")
