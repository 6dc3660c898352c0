//! Chat templates in the published formats of well-known model families, with the exact prompt each must give.
#![allow(clippy::unwrap_used)]

use hearth_engine::EngineError;
use hearth_engine::template::{ChatTemplate, TemplateInput};
use serde_json::{Map, Value, json};

fn render_with(
    template: &str,
    messages: Value,
    variables: Value,
    tools: Value,
) -> Result<String, EngineError> {
    let template = ChatTemplate::new(template)?;
    template.render(&TemplateInput {
        messages: messages.as_array().unwrap(),
        tools: tools.as_array().unwrap(),
        variables: variables.as_object().unwrap_or(&Map::new()),
        bos: "<s>",
        eos: "</s>",
        add_generation_prompt: true,
        // 2026-02-03 04:05:06 UTC.
        now: 1_770_091_506,
    })
}

fn render(template: &str, messages: Value) -> String {
    render_with(template, messages, json!({}), json!([])).unwrap()
}

fn talk() -> Value {
    json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ])
}

#[test]
fn chatml() {
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
        <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    let template = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
        '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    assert_eq!(render(template, talk()), expected);
    let built_in = ChatTemplate::chatml();
    let messages = talk();
    let text = built_in.render(&TemplateInput {
        messages: messages.as_array().unwrap(),
        tools: &[],
        variables: &Map::new(),
        bos: "",
        eos: "",
        add_generation_prompt: true,
        now: 0,
    });
    assert_eq!(text.unwrap(), expected);
}

#[test]
fn llama_2_folds_the_system_message_into_the_first_turn() {
    let template = "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}\
        {% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}\
        {% set system = '' %}{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('roles must alternate') }}{% endif %}{% if m['role'] == 'user' %}\
        {{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip() + ' [/INST]' }}\
        {% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
    assert_eq!(
        render(template, talk()),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Bye [/INST]"
    );
    let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let error = render_with(template, twice, json!({}), json!([])).unwrap_err();
    assert!(
        matches!(&error, EngineError::Invalid { field: "messages", message } if message.ends_with("roles must alternate")),
        "{error}"
    );
}

#[test]
fn llama_3_writes_headers_and_the_date() {
    let template = "{{- bos_token }}\n{%- set date = strftime_now('%d %b %Y') %}\n\
        {%- for m in messages %}\n    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}\n\
        {%- if loop.first and m.role == 'system' %}\n        {{- 'Today Date: ' + date + '\n\n' }}\n    {%- endif %}\n\
        {{- m.content | trim + '<|eot_id|>' }}\n{%- endfor %}\n\
        {%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n";
    assert_eq!(
        render(
            template,
            json!([{"role": "system", "content": " S "}, {"role": "user", "content": "U"}])
        ),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 03 Feb 2026\n\nS<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn mistral_counts_user_turns_with_a_namespace() {
    let template = "{{ bos_token }}{% set ns = namespace(index=0) %}{% for m in messages %}\
        {% if m.role == 'system' %}{% set ns.system = m.content %}{% elif m.role == 'user' %}\
        {% set ns.index = ns.index + 1 %}[INST] {% if ns.index == 1 and ns.system is defined %}{{ ns.system + '\n\n' }}\
        {% endif %}{{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    assert_eq!(
        render(template, talk()),
        "<s>[INST] Be brief.\n\nHi[/INST] Hello.</s>[INST] Bye[/INST]"
    );
}

#[test]
fn gemma_renames_the_assistant() {
    let template = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
        {% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}\
        {% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim \
        + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";
    assert_eq!(
        render(
            template,
            json!([{"role": "user", "content": "Hi "}, {"role": "assistant", "content": "Yo"}])
        ),
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n<start_of_turn>model\n"
    );
    assert!(
        render_with(template, talk(), json!({}), json!([]))
            .unwrap_err()
            .to_string()
            .contains("not supported")
    );
}

#[test]
fn phi_3() {
    let template = "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}\
        {{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}\
        {{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}\
        {{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";
    assert_eq!(
        render(template, talk()),
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"
    );
}

/// Qwen 3: tools as JSON lines, earlier reasoning dropped, thinking switched off by a variable.
const QWEN_3: &str = "{%- if tools %}\n    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}\n    {%- for tool in tools %}\n\
        {{- \"\\n\" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n    {{- '\\n</tools><|im_end|>\\n' }}\n{%- endif %}\n\
    {%- for message in messages %}\n    {%- set content = message.content %}\n\
    {%- if message.role == 'assistant' and '</think>' in content %}\n\
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n\
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n{%- endfor %}\n\
    {%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n\
    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n\
    {%- endif %}\n{%- endif %}";

#[test]
fn qwen_3_with_tools_and_without_thinking() {
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."},
        {"role": "user", "content": "Weather?"},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    assert_eq!(
        render_with(QWEN_3, messages, json!({"enable_thinking": false}), tools).unwrap(),
        "<|im_start|>system\n# Tools\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \
         \"parameters\": {\"type\": \"object\"}}}\n</tools><|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n\
         <think>\n\n</think>\n\n"
    );
    assert_eq!(
        render(QWEN_3, json!([{"role": "user", "content": "Hi"}])),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn deepseek_r1_collects_the_system_prompt_first() {
    let template = "{%- set ns = namespace(system='') -%}{%- for m in messages -%}{%- if m['role'] == 'system' -%}\
        {%- set ns.system = m['content'] -%}{%- endif -%}{%- endfor -%}{{ bos_token }}{{ ns.system }}\
        {%- for m in messages -%}{%- if m['role'] == 'user' -%}{{ '<｜User｜>' + m['content'] }}\
        {%- elif m['role'] == 'assistant' and m['content'] is not none -%}\
        {{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}{%- endif -%}{%- endfor -%}\
        {%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\n' }}{%- endif -%}";
    assert_eq!(
        render(template, talk()),
        "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜><think>\n"
    );
}

#[test]
fn zephyr_and_its_trimmed_blocks() {
    let template = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n\
        {% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n\
        {% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n\
        {% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
    assert_eq!(
        render(template, talk()),
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n"
    );
}

#[test]
fn command_r_uses_macros_and_python_methods() {
    let template = "{%- macro turn(role, text) -%}<|START_OF_TURN_TOKEN|><|{{ role.upper() }}_TOKEN|>{{ text }}<|END_OF_TURN_TOKEN|>{%- endmacro -%}\
        {{ bos_token }}{% for m in messages %}{% set role = {'system': 'system', 'user': 'user', 'assistant': 'chatbot'}.get(m.role) %}\
        {{ turn(role, m.content.strip()) }}{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}";
    assert_eq!(
        render(template, json!([{"role": "user", "content": " Hi "}])),
        "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    );
}

#[test]
fn parts_reach_templates_that_want_strings_and_those_that_want_parts() {
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]);
    assert_eq!(
        render(
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            messages.clone()
        ),
        "one\ntwo"
    );
    let parts = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endfor %}";
    assert_eq!(render(parts, messages), "<one><two>");
}

#[test]
fn generation_tags_mean_nothing_here() {
    let lines = "A\n{%- generation -%}\nx\n{%- endgeneration -%}\nBy";
    assert_eq!(render(lines, json!([])), "AxBy");
    let trimmed = "A\n  {% generation %}\nx\n  {% endgeneration %}\nBy";
    assert_eq!(render(trimmed, json!([])), "A\nx\nBy");
    let template =
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
    assert_eq!(
        render(template, json!([{"role": "user", "content": "x"}])),
        "x"
    );
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let template = "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}";
    let error = render_with(template, talk(), json!({}), json!([])).unwrap_err();
    assert!(
        error.to_string().contains("too many steps") || error.to_string().contains("too much"),
        "{error}"
    );
    assert!(
        ChatTemplate::new("{% for %}")
            .unwrap_err()
            .to_string()
            .contains("does not compile")
    );
}

/// On the smallest stack that requests are prepared on.
fn render_deep(template: String) -> Result<String, EngineError> {
    std::thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(move || render_with(&template, talk(), json!({}), json!([])))
        .unwrap()
        .join()
        .unwrap()
}

#[test]
fn a_template_that_calls_itself_is_an_error() {
    for template in [
        "{% include 'chat' %}",
        "{% include ['none', 'chat'] %}",
        "{% import 'chat' as chat %}",
        "{% from 'chat' import turn %}",
        "{% extends 'chat' %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% macro turn() %}{{ turn() }}{% endmacro %}{{ turn() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro turn(f) %}{{ f(f) }}{% endmacro %}{{ turn(turn) }}",
        "{% macro turn(f) %}{{ caller() }}{% call turn() %}{{ turn() }}{% endcall %}{% endmacro %}{% call turn() %}{% endcall %}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    ] {
        let error = render_deep(template.into()).unwrap_err().to_string();
        assert!(
            error.starts_with("the model's chat template"),
            "{template}: {error}"
        );
    }
}

/// The compiler calls itself for each of these; it has the stack for as many as a template may hold.
#[test]
fn chains_of_any_length_compile_or_are_refused() {
    let filled = |start: &str, link: &str, end: &str| {
        let links = ((128 << 10) - start.len() - end.len()) / link.len();
        [start, &link.repeat(links), end].concat()
    };
    for (start, link, end) in [
        ("{{ ", "-", "1 }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ 1", "+1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 1", "**1", " }}"),
        ("{{ 1", " or 1", " }}"),
        ("{{ 1", " if 1 else 1", " }}"),
        ("{{ ''", "|trim", " }}"),
        ("{{ x", ".y", " }}"),
        ("{{ ", "(", " }}"),
        ("{{ ", "[", " }}"),
        ("", "{% if 1 %}", ""),
        ("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
    ] {
        let _ = ChatTemplate::new(&filled(start, link, end));
        let longer = filled(start, link, end) + &" ".repeat(128 << 10);
        let error = ChatTemplate::new(&longer).unwrap_err().to_string();
        assert!(error.contains("at most 131072"), "{error}");
    }
}

#[test]
fn what_can_be_walked_through_is_what_python_says() {
    let template = "{{ tools is iterable }} {{ tools is iterable and tools | length > 0 }} {{ messages is iterable }} \
        {{ 'text' is iterable }} {{ missing is iterable }} {{ 5 is iterable }}";
    assert_eq!(render(template, talk()), "False False True True True False");
}
