"""Three chat templates, each with and without marks of what the assistant says, and chats to write by them."""

from tiny import BOS, EOS, tiny_tokenizer

_CALLS = (
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}{% endfor %}"
)
TEMPLATES = {
    "headers": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
        + _CALLS
        + "<|end|>\n{% endgeneration %}{% else %}{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "a beginning, tools and two line ends": (
        "{{ bos_token }}{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% for m in messages %}"
        "<{{ m.role }}>\n\n{% if m.role == 'assistant' %}{% generation %}{{ (m.content or '') | trim }}"
        + _CALLS
        + "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n\n{% endif %}"
    ),
    "instructions in brackets": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %} {{ m.content or '' }}"
        + _CALLS
        + "{{ eos_token }}{% endgeneration %}{% else %}[{{ m.role }}] {{ m.content }} [/{{ m.role }}]{% endif %}"
        "{% endfor %}"
    ),
}
ASKED, ANSWERED = {"role": "user", "content": "How are you today?"}, {"role": "assistant", "content": "I am well."}
_CALL = {"function": {"name": "count", "arguments": {"what": "ships"}}, "type": "function"}
CHATS = {
    "one turn": [ASKED, ANSWERED],
    "many turns": [
        ASKED,
        ANSWERED,
        {"role": "user", "content": "And the ships?"},
        {**ANSWERED, "content": "Snow 🥊 fell"},
    ],
    "a system turn": [{"role": "system", "content": "The keeper counted."}, ASKED, ANSWERED],
    "a tool call": [
        ASKED,
        {"role": "assistant", "tool_calls": [_CALL]},
        {"role": "tool", "content": "3 ships"},
        {**ANSWERED, "content": "Three."},
    ],
    "an answer first": [ANSWERED, ASKED, {**ANSWERED, "content": "And well again."}],
    "two answers": [ASKED, ANSWERED, {**ANSWERED, "content": "Thank you."}],
}


def templated_tokenizer(template, marked):
    tokenizer = tiny_tokenizer(bos_token=BOS)
    if not marked:
        template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    tokenizer.chat_template, tokenizer.pad_token = template, EOS
    return tokenizer
