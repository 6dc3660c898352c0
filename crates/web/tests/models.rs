//! The page of models: what fits is drawn, what does not is said.

use hearth_protocol::machine::{Estimate, Fit, LikelyModel, Machine, MachineReport};
use hearth_protocol::status::{ModelState, ModelStatus, NodeStatus};

fn report() -> MachineReport {
    let machine = Machine {
        device: "A <processor>".into(),
        gpu: false,
        threads: 8,
        memory: 16 << 30,
        gpu_memory: 0,
        weight_bytes_per_second: 20e9,
        operations_per_second: 1e12,
    };
    let model = |name: &str, fit, embeds, decode| LikelyModel {
        name: name.into(),
        embeds,
        here: name == "small:1b",
        estimate: Estimate {
            bytes: 1 << 30,
            fit,
            decode,
            prefill: 100.0,
        },
    };
    MachineReport {
        machine: Some(machine),
        models: vec![
            model("vectors:1", Fit::Whole, true, 400.0),
            model("small:1b", Fit::Whole, false, 40.0),
            model("medium:8b", Fit::Shared, false, 10.0),
            model("large:70b", Fit::No, false, 1.0),
        ],
    }
}

fn status() -> NodeStatus {
    NodeStatus {
        version: "1.2.3".into(),
        pid: 1,
        uptime_seconds: 1,
        address: "127.0.0.1:8321".into(),
        default_model: "ember".into(),
        cpu: "zen4".into(),
        memory_bytes: None,
        models_folder: None,
        models: Vec::new(),
        elsewhere: Vec::new(),
    }
}

#[test]
fn every_model_has_a_row_and_every_one_that_answers_here_a_bar() {
    let page = hearth_web::models(&status(), &report());
    for text in [
        "A &lt;processor&gt;",
        "18.6 GiB",
        "1.00 TFLOP/s",
        "small:1b",
        "40 tokens/s",
        "in part on the GPU",
        "embeds",
        "large:70b",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(page.matches("<rect").count(), 2);
    // The fastest that answers has the longest bar.
    assert!(page.contains("width=\"100.0\"") && page.contains("width=\"25.0\""));
    assert!(!page.contains("style="), "the page's policy refuses styles");
}

#[test]
fn a_model_has_the_command_that_gets_it_or_talks_to_it() {
    let mut status = status();
    let page = hearth_web::models(&status, &report());
    let commands = |page: &str| -> Vec<String> {
        let parts = page.split("data-text=\"").skip(1);
        parts
            .map(|part| part.split('"').next().unwrap_or_default().to_owned())
            .collect()
    };
    let expected = [
        "hearth pull vectors:1",
        "hearth chat --model small:1b",
        "hearth pull medium:8b",
    ];
    assert_eq!(commands(&page), expected, "none for what does not fit");

    // A node that is not where the commands look, and a file that somebody named to be pasted into a shell.
    status.address = "127.0.0.1:9000".into();
    status.models = vec![ModelStatus {
        name: "x; it's $(me)".into(),
        state: ModelState::Idle,
        progress: None,
        eta_seconds: None,
        error: None,
        size_bytes: 1,
        architecture: None,
        parameters: None,
        context: None,
        dimensions: None,
        load: None,
    }];
    let page = hearth_web::models(&status, &report());
    assert_eq!(
        commands(&page)[0],
        r"hearth chat --model 'x; it'\''s $(me)' --host 127.0.0.1:9000"
    );
}

#[test]
fn what_was_not_measured_can_be() {
    let empty = MachineReport {
        machine: None,
        models: Vec::new(),
    };
    let page = hearth_web::models(&status(), &empty);
    assert!(page.contains("Not measured yet") && page.contains("Measure this machine"));
}
