"""Chat templates by name, for models that come without one."""

from collections.abc import Mapping
from typing import Final

CHATML: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""OpenAI's ChatML. `<|im_start|>` and `<|im_end|>` must be tokens; a tokenizer without them gets them by add_tokens."""

PLAIN: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "Assistant:{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Words in place of control tokens, for a base model whose vocabulary is to stay as it is."""

BUILT_IN: Final[Mapping[str, str]] = {"chatml": CHATML, "plain": PLAIN}
