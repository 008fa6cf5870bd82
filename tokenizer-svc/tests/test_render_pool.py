"""A hostile template costs its own request, at most its limits, and nobody else anything."""

import asyncio
from dataclasses import replace

import pytest
from serin_tokenizer_svc.errors import FolderRefused, RenderBusy, TemplateLimit, TemplateRejected
from serin_tokenizer_svc.render_pool import RenderLimits, RenderPool

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}done"
PATIENT = RenderLimits(timeout_s=60.0, num_processes=1, output_chars=1 << 20)
QUICK = replace(PATIENT, timeout_s=0.4)
ENDLESS = {
    "a loop": LOOP,
    "a huge power": "{{ 9 ** (9 ** (8 + messages | length)) }}",
}
HOSTILE = {
    "much output": ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "more than"),
    "one huge string": ("{{ 'x' * 10 ** 10 }}", "memory|process died"),
    "many huge strings": (
        "{% set ns = namespace(s='x' * 1000000) %}{% for i in range(9999) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "memory|process died",
    ),
    "recursion": ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "too far|memory"),
    "huge range": ("{% for i in range(10 ** 9) %}{% endfor %}", "too far"),
}
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ dict.__class__.__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{% set n = namespace(_x=1) %}{{ n }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ self.__init__.__globals__ }}",
]
VARIABLES = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_a_hostile_template_fails_alone(name):
    """The request is refused with a limit's reason, and the same pool renders the next one."""
    source, said = HOSTILE[name]
    templates = {"bad": source, "good": "{{ messages[0].content }}"}
    async with RenderPool(templates, PATIENT) as pool:
        with pytest.raises(TemplateLimit, match=said):
            await pool.render("bad", VARIABLES)
        assert await pool.render("good", VARIABLES) == "hi"


@pytest.mark.parametrize("name", sorted(ENDLESS))
async def test_an_endless_template_is_ended_alone(name):
    """The request is refused, and the same pool renders the next one in a new process."""
    async with RenderPool({"bad": ENDLESS[name], "good": "{{ messages[0].content }}"}, QUICK) as pool:
        with pytest.raises(TemplateLimit, match="longer than"):
            await pool.render("bad", VARIABLES)
        pool.children._timeout_s = PATIENT.timeout_s
        assert await pool.render("good", VARIABLES) == "hi"


@pytest.mark.parametrize("source", ESCAPES)
async def test_the_sandbox_holds(source):
    """Python's own attributes are out of reach and the conversation cannot be changed."""
    async with RenderPool({"default": source}, PATIENT) as pool:
        try:
            text = await pool.render("default", VARIABLES)
        except TemplateRejected:
            return
    assert "<" not in text
    assert "{" not in text


async def test_others_are_served_while_one_loops():
    """With two processes, an endless loop in one does not delay those that use the other."""
    templates = {"bad": LOOP, "good": "{{ messages[0].content }}"}
    async with RenderPool(templates, RenderLimits(timeout_s=30.0, num_processes=2)) as pool:
        bad = asyncio.create_task(pool.render("bad", VARIABLES))
        for _ in range(50):
            assert await pool.render("good", VARIABLES) == "hi"
        assert not bad.done()
        bad.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bad
        assert pool.num_kills == 1


async def test_waiting_is_bounded():
    """More renderings than may wait are refused at once instead of piling up."""
    limits = RenderLimits(timeout_s=30.0, num_processes=1, num_waiting=2)
    async with RenderPool({"bad": LOOP}, limits) as pool:
        tasks = [asyncio.create_task(pool.render("bad", VARIABLES)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RenderBusy):
            await pool.render("bad", VARIABLES)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_rendering_gives_its_process_no_stale_answer():
    """Whoever renders next gets their own text, not that of a caller who went away."""
    async with RenderPool({"echo": "{{ messages[0].content }}"}, PATIENT) as pool:
        for number in range(5):
            task = asyncio.create_task(pool.render("echo", {"messages": [{"content": "gone"}]}))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await pool.render("echo", {"messages": [{"content": f"mine {number}"}]}) == f"mine {number}"


@pytest.mark.parametrize(
    ("source", "said"), [("{% if %}", "line 1"), ("{{ x", "line 1"), ("{% nonsense %}", "nonsense")]
)
async def test_a_template_that_does_not_compile_is_refused_at_start(source, said):
    """The message names the template and the line."""
    with pytest.raises(FolderRefused, match=said):
        async with RenderPool({"default": source}, PATIENT):
            pass


async def test_a_process_killed_from_outside_costs_nobody_anything():
    """Whoever gets a dead process is rendered by another; the dead one is replaced."""
    async with RenderPool({"echo": "{{ messages[0].content }}"}, RenderLimits(timeout_s=20.0)) as pool:
        victim = next(iter(pool.children._processes))._process
        victim.kill()
        await victim.wait()
        for _ in range(4):
            assert await pool.render("echo", VARIABLES) == "hi"
        assert pool.num_kills == 1


async def test_no_process_is_left_behind():
    """Leaving the pool ends its processes, whatever they were doing."""
    async with RenderPool({"bad": LOOP}, RenderLimits(timeout_s=30.0, num_processes=2)) as pool:
        processes = [process._process for process in pool.children._processes]
        task = asyncio.create_task(pool.render("bad", VARIABLES))
        await asyncio.sleep(0)
    assert [process.returncode for process in processes] == [-9, -9]
    with pytest.raises(RenderBusy, match="stopping"):
        await task
