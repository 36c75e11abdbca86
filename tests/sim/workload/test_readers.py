import builtins
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.workload import load_workload
from bssim.sim.workload.readers import FORMATS, ReaderOptions, read_batch_file, read_workload
from bssim.sim.workload.readers.tokenizer import BytesTokenizer, open_tokenizer

TOKENIZER = Path(__file__).parents[2] / "data" / "tokenizer.json"

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.5,10,1\n2023-11-16 18:17:04,20,2\n"
)
BURSTGPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,,1.5,ChatGPT,472,18,490,Conversation log\n45,,2,GPT-4,1087,0,1087,API log\n"
    "118,,2,GPT-4,417,276,693,API log\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,100,10\n2.5,200,20\n"
MMLU = (
    "subject,idx,prefix_tokens,question_tokens,input_tokens\n"
    "algebra,0,30,5,35\nanatomy,0,20,4,24\nalgebra,1,30,7,37\n"
)
MOONCAKE = (
    '{"timestamp": 1000, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n'
    '{"timestamp": 3500, "input_length": 1100, "output_length": 6, "hash_ids": [0, 2, 3]}\n'
    '{"timestamp": 4000, "input_length": 1024, "output_length": 7, "hash_ids": [0, 2]}\n'
)
TOKEN_IDS = (
    '{"id": "a", "prompt_token_ids": [1, 2, 3], "output_tokens": 4, "priority": 2}\n'
    '{"id": "b", "prompt_token_ids": [1, 2, 9, 9], "output_tokens": 5}\n'
)
CSV = (
    "request_id,source,prompt_tokens,output_tokens,max_cached_tokens\n"
    "x,s,9,1,0\ny,t,5,2,0\nz,s,7,3,6\n"
)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file


def lengths(w):
    return list(zip(w.prompt_tokens.tolist(), w.output_tokens.tolist(), strict=True))


def test_azure(write):
    w = read_workload(write(AZURE))
    assert lengths(w) == [(10, 1), (20, 2)]
    assert w.arrival_s.tolist() == [0.0, 0.5]
    assert (w.name, w.source_names, w.tree.num_nodes) == ("trace", ("trace",), 1)


def test_burstgpt_drops_failed_requests_and_says_so(write):
    w = read_workload(write(BURSTGPT), name="burst")
    assert lengths(w) == [(472, 18), (417, 276)]
    assert w.arrival_s.tolist() == [0.0, 113.0]
    assert w.notes == ("burst: 1 of 3 requests dropped: no prompt or no output",)


def test_vidur(write):
    w = read_workload(write(VIDUR))
    assert lengths(w) == [(100, 10), (200, 20)]
    assert w.arrival_s.tolist() == [0.0, 2.0]


def test_mmlu_groups_by_subject(write):
    w = read_workload(write(MMLU))
    assert lengths(w) == [(35, 2), (24, 2), (37, 2)]
    assert w.shared_tokens.tolist() == [30, 0, 30]
    assert "outputs set to 2 tokens" in w.notes[0]


def test_mooncake_blocks(write):
    w = read_workload(write(MOONCAKE, "m.jsonl"))
    assert lengths(w) == [(600, 5), (1100, 6), (1024, 7)]
    assert w.shared_tokens.tolist() == [512, 1024, 1024]
    assert w.max_cached_tokens.tolist() == [0, 512, 1023]
    assert w.arrival_s.tolist() == [0.0, 2.5, 3.0]


def test_mooncake_blocks_of_another_size(write):
    rows = [(40, [0, 1, 2]), (33, [0, 1, 3]), (16, [0])]
    lines = [{"input_length": p, "output_length": 5, "hash_ids": h} for p, h in rows]
    w = read_workload(write("".join(f"{json.dumps(line)}\n" for line in lines)))
    assert w.shared_tokens.tolist() == [32, 32, 16]
    assert w.notes == ("trace: blocks of 16 tokens",)


def test_token_ids(write):
    w = read_workload(write(TOKEN_IDS, "t.jsonl"))
    assert lengths(w) == [(3, 4), (4, 5)]
    assert w.shared_tokens.tolist() == [2, 2]
    assert w.request_ids == ("a", "b")
    assert w.priority.tolist() == [2, 0]


def test_our_csv(write):
    w = read_workload(write(CSV))
    assert w.request_ids == ("x", "y", "z")
    assert [w.source_names[s] for s in w.source] == ["s", "t", "s"]
    assert w.max_cached_tokens.tolist() == [0, 0, 6]
    short = read_workload(write("output_tokens,prompt_tokens\n3,4\n"))
    assert lengths(short) == [(4, 3)]


@pytest.mark.parametrize("text", [AZURE, BURSTGPT, VIDUR, MMLU, MOONCAKE, TOKEN_IDS, CSV])
def test_bom_crlf_blank_lines_and_gzip_change_nothing(write, text):
    plain = read_workload(write(text))
    lines = text.splitlines()
    messy = "\ufeff" + "\r\n".join(["", lines[0], "", *lines[1:], "", ""])
    assert read_workload(write(messy, "messy.csv")).digest() == plain.digest()
    zipped = read_workload(write(gzip.compress(text.encode()), "trace.csv.gz"))
    assert (zipped.digest(), zipped.name) == (plain.digest(), "trace")


def test_the_format_can_be_named(write):
    path = write("prompt_tokens,output_tokens,ContextTokens,GeneratedTokens\n1,2,3,4\n")
    assert lengths(read_workload(path, ReaderOptions(format="azure"))) == [(3, 4)]
    with pytest.raises(InputError, match="did you mean 'azure'"):
        read_workload(path, ReaderOptions(format="azur"))
    assert set(FORMATS) >= {"azure", "burstgpt", "vidur", "mooncake", "mmlu", "openai-batch"}


def test_caps_are_counted(write):
    w = read_workload(write(MOONCAKE), ReaderOptions(max_prompt_tokens=800, max_output_tokens=6))
    assert lengths(w) == [(600, 5), (800, 6), (800, 6)]
    assert w.shared_tokens.tolist() == [512, 800, 800]
    assert w.notes == (
        "trace: 2 of 3 prompts cut to 800 tokens",
        "trace: 1 of 3 outputs cut to 6 tokens",
    )


BAD = [
    (AZURE.replace(",20,", ",x,"), r":3: ContextTokens: found 'x'; expected a whole number"),
    (AZURE.replace(",20,", ",,"), r":3: ContextTokens: found ''; expected a whole number"),
    (AZURE.replace(",20,", ",1.5,"), r":3: ContextTokens: found 1\.5"),
    (AZURE.replace(",20,", ",-2,"), r":3: ContextTokens: found -2"),
    ("\n\n" + AZURE.replace("\n2023", "\n\n2023", 1).replace(",20,", ",x,"), r":6: ContextTokens"),
    (AZURE + "1,2,3,4\n", r"line 4"),
    (AZURE.replace(",1\n", ",1,8\n").replace(",2\n", ",2,8\n"), r"Length of header"),
    (AZURE.replace(",10,", ",True,").replace(",20,", ",False,"), r":2: ContextTokens: found True"),
    (AZURE.splitlines()[0], r"found a header and no rows"),
    (AZURE.splitlines()[0] + "\nx,0,0\n", r"found 1 request, none with both"),
    ("", r"found an empty file"),
    ("a,b\n1,2\n", r":1: found columns a, b; expected those of one of"),
    ('{"x": 1}\n', r":1: found keys x; expected those of one of"),
    (TOKEN_IDS[:-2] + "\r\n", r":2: found bad JSON at column 65 \("),
    ("{oops\n", r":1: found bad JSON at column 2"),
    (MMLU.replace("1,30,", "1,31,"), r":4: prefix_tokens: found 31; expected the prefix of"),
    (MOONCAKE.replace("[0, 2]", "[0]"), r":3: hash_ids: found 1; expected 2 blocks of 512"),
    (MOONCAKE.replace("[0, 2]", '["a", 2]'), r":3: hash_ids: found \['a', 2\]; expected a list"),
    (
        MOONCAKE.replace('"output_length": 6', '"output_length": null'),
        r":2: output_length: found None",
    ),
    *(
        (AZURE.replace("18:17:04", time).replace("2023-11-16 ", ""), ":3: TIMESTAMP: found")
        for time in ("inf", "-inf", "1e999")
    ),
    (MOONCAKE + "[1]\n", r":4: line: found \[1\]; expected a JSON object"),
    (TOKEN_IDS.replace('"b"', '"a"'), r":2: id: found 'a'; expected a name used once \(line 1"),
    (TOKEN_IDS.replace('"id": "b", ', ""), r":2: id: found None; expected an id in every line"),
    (TOKEN_IDS.replace("9, 9", "9, -9"), r":2: prompt_token_ids: found \[1, 2, 9, -9\]"),
    (TOKEN_IDS.replace("2}", "true}"), r":1: priority: found True"),
    (TOKEN_IDS.replace("2}", f"{10**30}}}"), r":1: priority: found 1000"),
    (
        '{"prompt_token_ids": [1], "output_tokens": 99999999999999999999}\n',
        r":1: output_tokens: found 99999999999999999999; expected a whole number",
    ),
    ('{"body": ' + "[" * 20_000 + "\n", r":1: found JSON nested too deeply"),
    *(
        (
            f'{{"timestamp": {t}, "input_length": 1, "output_length": 1, "hash_ids": [1]}}\n',
            r":1: timestamp: found .*; expected a finite number of milliseconds",
        )
        for t in ("NaN", "-Infinity", 10**400)
    ),
    (
        f'{{"prompt_token_ids": [1], "output_tokens": {"1" * 5000}}}\n',
        r":1: found a number with too many digits",
    ),
    (CSV.replace("3,6", "3,7"), r":4: max_cached_tokens: found 7; expected less than the prompt"),
    (
        CSV.replace("5,2,0", "5,2,4"),
        r":3: max_cached_tokens: found 4; expected less than the prompt",
    ),
    (CSV.replace("z,s", "x,s"), r":4: request_id: found 'x'; expected a name used once"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_an_error_says_file_line_field_value_and_expectation(write, text, message):
    path = write(text)
    with pytest.raises(InputError, match=message) as e:
        read_workload(path)
    assert str(path) in str(e.value)


def test_files_that_cannot_be_read(write, tmp_path):
    with pytest.raises(
        InputError, match="cannot be read: Is a directory; expected a readable file"
    ):
        read_workload(tmp_path)
    with pytest.raises(InputError, match="expected UTF-8"):
        read_workload(write(b"a,\xff\n"))
    for broken in (b"broken", bytes(7) + b"\xff" * 20):  # a bad header; a bad deflate stream
        with pytest.raises(InputError, match="cannot be read as gzip"):
            read_workload(write(b"\x1f\x8b\x08" + broken))
    with pytest.raises(InputError, match=r"workload: found '.*nowhere.csv', but there is no"):
        load_workload(tmp_path / "nowhere.csv")


def test_a_sample_of_a_file_is_seeded_and_keeps_its_order(write):
    rows = "".join(f"{i},{i + 1},1\n" for i in range(200))
    path = write("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    a, b, c = (load_workload(path, num_requests=50, seed=s) for s in (0, 0, 1))
    assert a.prompt_tokens.tolist() == b.prompt_tokens.tolist() == sorted(b.prompt_tokens.tolist())
    assert a.prompt_tokens.tolist() != c.prompt_tokens.tolist()
    with pytest.raises(InputError, match="num_requests: found 201; expected at most the 200"):
        load_workload(path, num_requests=201)


def batch(*bodies: dict) -> str:
    return "".join(
        json.dumps({"custom_id": f"c{i}", "method": "POST", "url": "/v1", "body": body}) + "\n"
        for i, body in enumerate(bodies)
    )


def chat(*contents: object, **options: object) -> dict:
    roles = ["system", "user"][-len(contents) :]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    return {"model": "m", "messages": messages, "max_tokens": 9, **options}


def test_batch_by_bytes(write):
    path = write(batch(chat("a" * 40, "xyz"), chat("a" * 40, "abc", max_completion_tokens=5)))
    w = read_workload(path, ReaderOptions(tokenizer="bytes:4"))
    # "system: " + 40 a + "\nuser: " + 3 + "\nassistant:" is 8 + 40 + 7 + 3 + 11 = 69 bytes.
    assert lengths(w) == [(18, 9), (18, 5)]
    assert w.shared_tokens.tolist() == [13, 13]
    assert w.request_ids == ("c0", "c1")
    assert w.max_tokens.tolist() == [9, 5]
    assert any("bytes:4, an approximation" in note for note in w.notes)
    assert any("an upper bound" in note for note in w.notes)


def test_batch_by_tokenizer_file(write):
    path = write(batch(chat("hello world"), {"prompt": "hello there world", "max_tokens": 3}))
    w = read_workload(path, ReaderOptions(tokenizer=str(TOKENIZER)))
    # "user: hello world\nassistant:" is user : hello world assistant :
    assert lengths(w) == [(6, 9), (3, 3)]


def test_batch_with_a_model_folder_and_its_chat_template(write, tmp_path):
    (tmp_path / "tokenizer.json").write_text(TOKENIZER.read_text())
    template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}there{% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    w = read_workload(
        write(batch(chat("hello", "hello world"))), ReaderOptions(tokenizer=str(tmp_path))
    )
    assert lengths(w) == [(4, 9)]


def test_batch_without_jinja_falls_back_to_the_plain_form(write, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text(TOKENIZER.read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    real = builtins.__import__

    def without_jinja(name, *args):
        if name.startswith("jinja2"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_jinja)
    w = read_workload(write(batch(chat("hello world"))), ReaderOptions(tokenizer=str(tmp_path)))
    assert lengths(w) == [(6, 9)]
    assert any("jinja2 is not installed" in note for note in w.notes)


def test_batch_of_token_ids_and_text_parts(write):
    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd"}]
    w = read_workload(
        write(batch({"prompt": [5, 6, 7], "max_tokens": 2}, chat(parts))),
        ReaderOptions(tokenizer="bytes:1"),
    )
    assert lengths(w) == [(3, 2), (len("user: abcd\nassistant:"), 9)]


def test_batch_counts_tools_and_tool_calls(write):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    calls = [{"id": "x", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    user = {"role": "user", "content": "hi"}
    messages = [user, {"role": "assistant", "content": None, "tool_calls": calls}]
    both = [user, {"role": "assistant", "content": "ok", "tool_calls": calls}]
    path = write(
        batch(
            {"messages": messages, "max_tokens": 3},
            {"messages": both, "max_tokens": 3},
            {"messages": [user], "tools": tools, "max_tokens": 3},
        )
    )
    w = read_workload(path, ReaderOptions(tokenizer="bytes:1"))
    plain, called = "user: hi\nassistant:", " " + json.dumps(calls) + "\nassistant:"
    assert w.prompt_tokens.tolist() == [
        len(plain + called),
        len(plain + called) + 2,
        len(json.dumps(tools) + plain),
    ]
    assert "trace: tools of 1 request counted as their JSON text, an approximation" in w.notes


def test_half_a_surrogate_pair_is_a_character_of_its_own(write):
    path = write(batch({"prompt": "cut \ud800", "max_tokens": 3}))  # written as an escape
    assert read_workload(path, ReaderOptions(tokenizer="bytes:1")).prompt_tokens.tolist() == [5]


@pytest.mark.parametrize(
    ("option", "value"), [("tokenizer", "bytes:4"), ("default_output_tokens", 5)]
)
@pytest.mark.parametrize("text", [CSV, TOKEN_IDS, MOONCAKE])
def test_options_of_batch_files_are_refused_elsewhere(write, option, value, text):
    with pytest.raises(InputError, match=f"^{option}: found {value!r}; expected none: .*trace.csv"):
        read_workload(write(text), ReaderOptions(**{option: value}))


def test_batch_output_lengths(write):
    no_cap = {"prompt": [5, 6, 7]}
    path = write(batch(no_cap, {"prompt": [5], "max_tokens": 4}))
    with pytest.raises(InputError, match=r":1: body\.max_completion_tokens: found None"):
        read_workload(path)
    w = read_workload(path, ReaderOptions(default_output_tokens=6))
    assert lengths(w) == [(3, 6), (1, 4)]
    assert w.max_tokens.tolist() == [6, 4]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (chat("hi"), "found text prompts but no tokenizer; expected --tokenizer"),
        ({"max_tokens": 3}, r":1: body\.messages: found None; expected a list of messages"),
        ({"prompt": [1.5], "max_tokens": 3}, r":1: body\.prompt: found \[1\.5\]"),
        ({"prompt": [1], "max_tokens": "3"}, r":1: body\.max_tokens: found '3'"),
        (
            {"prompt": [1]},
            r"found None; expected a cap there or in max_tokens, or --default-output-tokens",
        ),
        ({"prompt": [1], "max_tokens": 3, "n": 8}, r":1: body\.n: found 8; expected 1: write the"),
        ({"prompt": [1], "max_tokens": 3, "n": "1"}, r":1: body\.n: found '1'; expected 1"),
    ],
)
def test_bad_batches(write, body, message):
    with pytest.raises(InputError, match=message):
        read_workload(write(batch(body)))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"body\.messages: found \[\]"),
        ([{"role": "assistant", "tool_calls": []}], r"body\.messages\[0\]\.content: found None"),
        ([{"content": "x"}], r"body\.messages\[0\]: found"),
        ([{"role": "user", "content": 3}], r"body\.messages\[0\]\.content: found 3"),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            r"body\.messages\[0\]\.content: .*expected text parts only",
        ),
    ],
)
def test_bad_messages(write, messages, message):
    path = write(batch({"messages": messages, "max_tokens": 3}))
    with pytest.raises(InputError, match=message):
        read_workload(path, ReaderOptions(tokenizer="bytes:4"))


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("bytes:0", "expected bytes:N with N at least 1"),
        ("bytes:x", "expected bytes:N with N at least 1"),
        ("nowhere", "found no file 'nowhere'"),
    ],
)
def test_bad_tokenizers(write, tokenizer, message):
    with pytest.raises(InputError, match=message):
        read_workload(write(batch(chat("hi"))), ReaderOptions(tokenizer=tokenizer))


def test_a_file_that_is_no_tokenizer(write):
    path = write(batch(chat("hi")))
    with pytest.raises(InputError, match="not a tokenizers file"):
        read_workload(path, ReaderOptions(tokenizer=str(write("{}", "tokenizer.json"))))


def test_batch_caps_are_not_lowered_by_the_default(write):
    path = write(batch({"prompt": [5], "max_tokens": 40}, {"prompt": [6]}))
    assert lengths(read_workload(path, ReaderOptions(default_output_tokens=6))) == [(1, 40), (1, 6)]


IMAGE = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "x"}}]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"body": chat(IMAGE)}, "image_url parts"),
        ({"body": chat("hi", n=2)}, "n is not 1"),
        ({"body": {"prompt": ["a", "b"], "max_tokens": 3}}, "several prompts"),
        ({"url": "/v1/embeddings", "body": {"model": "m", "input": "a"}}, "url /v1/embeddings"),
    ],
)
def test_what_bssim_cannot_price_is_left_out_by_reason(write, row, kind):
    path = write(
        json.dumps({"custom_id": "odd", **row}) + "\n" + batch(chat("hi"), {**chat("hi"), "n": 1})
    )
    with pytest.raises(InputError, match=r":1: .*--on-unsupported end"):
        read_batch_file(path, ReaderOptions(tokenizer="bytes:4"))
    read = read_batch_file(path, ReaderOptions(tokenizer="bytes:4"), on_unsupported="end")
    assert read.reasons == {kind: 1}
    assert read.workload.request_ids == ("c0", "c1")
    assert read.unpriceable == {0: kind}
    assert f"trace: 1 line left out: {kind}" in read.workload.notes


def test_a_file_of_nothing_but_embeddings_is_refused(write):
    row = {"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "x"}}
    with pytest.raises(InputError, match=r"no line that bssim can price \(url /v1/embeddings: 1\)"):
        read_batch_file(write(json.dumps(row)), on_unsupported="end")


def test_a_tokenizer_of_other_text_is_refused(write):
    path = write(batch({"prompt": "hello zebra hello", "max_tokens": 3}))
    with pytest.raises(InputError, match="maps 33% of 3 tokens to its unknown token"):
        read_workload(path, ReaderOptions(tokenizer=str(TOKENIZER)))


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_bytes_are_equal_ids_exactly_where_the_text_is_equal(texts):
    """Against a slow reading of the same rule: four bytes of UTF-8 are a token."""
    first, second = BytesTokenizer(4).encode(texts, chat=False)
    pieces = [[t.encode()[i : i + 4] for i in range(0, len(t.encode()), 4)] for t in texts]
    assert [len(first), len(second)] == [len(p) for p in pieces]
    for a, left in zip(first.tolist(), pieces[0], strict=True):
        assert 0 <= a < 2**31
        for b, right in zip(second.tolist(), pieces[1], strict=True):
            assert (a == b) == (left == right)


def test_tools_go_into_the_chat_template(write, tmp_path):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    (tmp_path / "tokenizer.json").write_text(TOKENIZER.read_text())
    (tmp_path / "chat_template.jinja").write_text(
        "{% for t in tools or [] %}{{ t.name }} {% endfor %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    path = write(batch(chat("world", tools=[{"name": "hello"}, {"name": "there"}])))
    w = read_workload(path, ReaderOptions(tokenizer=str(tmp_path)))
    assert lengths(w) == [(3, 9)]
    assert not any("tools of" in note for note in w.notes)


@pytest.mark.parametrize("settings", [b"[1]", b"{", b"\xff\xfe", b"[" * 10**5])
def test_damaged_settings_of_a_tokenizer_are_named(write, tmp_path, settings):
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (tmp_path / "tokenizer_config.json").write_bytes(settings)
    with pytest.raises(InputError, match=r"tokenizer_config\.json"):
        open_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "template",
    [
        "{% for a, b in messages %}{% endfor %}{{ messages[0].x.y }}",
        "{% for a, b, c, d in messages %}{{ a }}{% endfor %}",
        "{{ " + "1" * 5000 + " }}",
    ],
)
def test_chat_templates_that_fail_are_named(write, tmp_path, template):
    pytest.importorskip("jinja2", reason="chat templates need jinja2")
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    path = write(batch(chat("world")))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: chat_template: "):
        read_workload(path, ReaderOptions(tokenizer=str(tmp_path)))


def test_templates_that_are_no_templates_are_left_out(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [1, {"name": "x"}]}')
    assert not open_tokenizer(str(tmp_path)).has_template


def test_a_tokenizer_that_cannot_encode_is_named(tmp_path):
    text = TOKENIZER.read_text().replace('"[UNK]": 0', '"none": 0')
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot encode: .*\[UNK\]"):
        open_tokenizer(str(tmp_path)).encode(["unheard"], chat=False)
