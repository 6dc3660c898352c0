//! Every kind of item in one answer: the order of the events, and that they say what the items say.
#![allow(clippy::unwrap_used)]

use super::*;

/// The events of an answer with reasoning, text and a call.
fn events(summary: bool, cut: bool) -> (Vec<(&'static str, Value)>, Vec<Item>) {
    let mut output = Output::new(summary);
    let mut said = Vec::new();
    let mut say = |name, data| said.push((name, data));
    output.reasoning("I thi", &mut say);
    output.reasoning("nk.", &mut say);
    output.text("", &[], &mut say);
    output.text("Let me ", &[], &mut say);
    output.text("look.", &[], &mut say);
    output.call("look", &mut say);
    output.arguments("{\"at\":", &mut say);
    output.arguments("1}", &mut say);
    let items = output.finish(cut, &mut say);
    (said, items)
}

/// Names and what they are about; deltas one after the other are one.
fn order(events: &[(&'static str, Value)]) -> String {
    let mut lines: Vec<String> = events
        .iter()
        .map(|(name, data)| format!("{} {name}", data["output_index"]))
        .collect();
    lines.dedup();
    lines.join("\n")
}

#[test]
fn items_open_grow_and_close_one_after_the_other() {
    let (said, items) = events(false, false);
    insta::assert_snapshot!(order(&said), @r"
    0 response.output_item.added
    0 response.content_part.added
    0 response.reasoning_text.delta
    0 response.reasoning_text.done
    0 response.content_part.done
    0 response.output_item.done
    1 response.output_item.added
    1 response.content_part.added
    1 response.output_text.delta
    1 response.output_text.done
    1 response.content_part.done
    1 response.output_item.done
    2 response.output_item.added
    2 response.function_call_arguments.delta
    2 response.function_call_arguments.done
    2 response.output_item.done
    ");
    let done = said
        .iter()
        .filter(|(name, _)| *name == "response.output_item.done");
    let done: Vec<Value> = done.map(|(_, data)| data["item"].clone()).collect();
    assert_eq!(Value::from(done), serde_json::to_value(&items).unwrap());
    let joined = |name: &str| -> String {
        let deltas = said.iter().filter(|(other, _)| *other == name);
        deltas
            .map(|(_, data)| data["delta"].as_str().unwrap())
            .collect()
    };
    let mut item = serde_json::to_value(&items).unwrap();
    assert_eq!(
        item[0]["content"][0]["text"],
        joined("response.reasoning_text.delta")
    );
    assert_eq!(item[0]["summary"], json!([]));
    assert_eq!(
        item[1]["content"][0]["text"],
        joined("response.output_text.delta")
    );
    assert_eq!(
        item[2]["arguments"],
        joined("response.function_call_arguments.delta")
    );
    for item in item.as_array_mut().unwrap() {
        assert_eq!(item["status"], "completed");
        let kept: Item = serde_json::from_value(item.take()).unwrap();
        assert!(items.contains(&kept), "what is kept is read back");
    }
}

#[test]
fn a_summary_comes_beside_the_reasoning_if_it_was_asked_for() {
    let (said, items) = events(true, false);
    let first: Vec<_> = said
        .into_iter()
        .filter(|(_, data)| data["output_index"] == 0)
        .collect();
    insta::assert_snapshot!(order(&first), @r"
    0 response.output_item.added
    0 response.content_part.added
    0 response.reasoning_summary_part.added
    0 response.reasoning_text.delta
    0 response.reasoning_summary_text.delta
    0 response.reasoning_text.delta
    0 response.reasoning_summary_text.delta
    0 response.reasoning_text.done
    0 response.content_part.done
    0 response.reasoning_summary_text.done
    0 response.reasoning_summary_part.done
    0 response.output_item.done
    ");
    let item = serde_json::to_value(&items[0]).unwrap();
    assert_eq!(
        item["summary"],
        json!([{"type": "summary_text", "text": "I think."}])
    );
}

#[test]
fn what_was_cut_is_incomplete_and_silence_is_an_empty_message() {
    let (_, items) = events(false, true);
    let states: Vec<Value> = items
        .iter()
        .map(|item| serde_json::to_value(item).unwrap()["status"].take())
        .collect();
    assert_eq!(states, ["completed", "completed", "incomplete"]);
    let items = Output::new(false).finish(false, &mut |_, _| {});
    let item = serde_json::to_value(&items[0]).unwrap();
    assert_eq!(
        item["content"][0],
        json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
    );
}
