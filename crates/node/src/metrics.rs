//! The node's counters in Prometheus' text format; names start with `hearth_`.

use std::fmt::Write;
use std::time::Duration;

use hearth_protocol::status::{ModelLoad, ModelState, NodeStatus};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of a finished request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// Counters the handlers write.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    first_token: Histogram,
    request_seconds: Histogram,
    tokens_in: Counter,
    tokens_out: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || {
            Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ])
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("hearth"),
            requests: Family::default(),
            first_token: seconds(),
            request_seconds: seconds(),
            tokens_in: Counter::default(),
            tokens_out: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "http_requests",
            "Requests by route and status",
            metrics.requests.clone(),
        );
        registry.register(
            "time_to_first_token_seconds",
            "From the request to its first token",
            metrics.first_token.clone(),
        );
        registry.register(
            "generation_seconds",
            "From the request to the end of its answer",
            metrics.request_seconds.clone(),
        );
        registry.register(
            "prompt_tokens",
            "Tokens of prompts",
            metrics.tokens_in.clone(),
        );
        registry.register(
            "generated_tokens",
            "Tokens generated",
            metrics.tokens_out.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A request was answered; a route that does not exist counts as `other`.
    pub fn request(&self, route: &str, status: u16) {
        self.requests
            .get_or_create(&RequestLabels {
                route: route.into(),
                status,
            })
            .inc();
    }

    /// An answer's first token came after this long.
    pub fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// An answer ended.
    pub fn answered(&self, prompt: u32, generated: u32, took: Duration) {
        self.tokens_in.inc_by(prompt.into());
        self.tokens_out.inc_by(generated.into());
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// Texts with so many tokens were embedded.
    pub fn embedded(&self, prompt: u32) {
        self.tokens_in.inc_by(prompt.into());
    }
}

/// Type of the text that [`Metrics::text`] gives.
pub(crate) const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
    /// These counters, and what `status` says of the node and of every loaded model, as OpenMetrics text.
    pub fn text(&self, status: &NodeStatus) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        let body = text.trim_end().trim_end_matches("# EOF").to_owned();
        let mut text = body;
        append(
            &mut text,
            Kind::Gauge,
            "uptime_seconds",
            "Seconds since the node started",
            [(String::new(), status.uptime_seconds as f64)],
        );
        if let Some(bytes) = status.memory_bytes {
            append(
                &mut text,
                Kind::Gauge,
                "resident_memory_bytes",
                "Resident memory of the process",
                [(String::new(), bytes as f64)],
            );
        }
        let label = |name: &str| {
            format!(
                "{{model=\"{}\"}}",
                name.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n")
            )
        };
        let ready = status.models.iter().map(|model| {
            (
                label(&model.name),
                if model.state == ModelState::Ready {
                    1.0
                } else {
                    0.0
                },
            )
        });
        append(
            &mut text,
            Kind::Gauge,
            "model_ready",
            "Whether the model is loaded",
            ready,
        );
        type Read = fn(&ModelLoad) -> f64;
        let readings: [(Kind, &str, &str, Read); 13] = [
            (Kind::Gauge, "slots", "Slots", |load| load.slots.into()),
            (Kind::Gauge, "slots_busy", "Slots in use", |load| {
                load.slots_busy.into()
            }),
            (
                Kind::Gauge,
                "queued_requests",
                "Requests waiting for a slot",
                |load| load.queued.into(),
            ),
            (Kind::Gauge, "kv_cells", "KV cells", |load| {
                load.kv_cells.into()
            }),
            (Kind::Gauge, "kv_cells_used", "KV cells in use", |load| {
                load.kv_used.into()
            }),
            (
                Kind::Gauge,
                "parked_bytes",
                "Prefixes parked in RAM",
                |load| load.parked_bytes as f64,
            ),
            (
                Kind::Counter,
                "prefill_tokens",
                "Prompt tokens computed since the model was loaded",
                |load| load.prefill_tokens as f64,
            ),
            (
                Kind::Counter,
                "cached_tokens",
                "Prompt tokens taken from the cache since the model was loaded",
                |load| load.cached_tokens as f64,
            ),
            (
                Kind::Counter,
                "decode_tokens",
                "Tokens generated since the model was loaded",
                |load| load.decode_tokens as f64,
            ),
            (
                Kind::Counter,
                "completed_requests",
                "Requests answered to the end since the model was loaded",
                |load| load.completed as f64,
            ),
            (
                Kind::Counter,
                "cancelled_requests",
                "Requests whose client went away since the model was loaded",
                |load| load.cancelled as f64,
            ),
            (
                Kind::Gauge,
                "decode_tokens_per_second",
                "Decode speed lately",
                |load| load.decode_tokens_per_second.into(),
            ),
            (
                Kind::Gauge,
                "prefill_tokens_per_second",
                "Prefill speed lately",
                |load| load.prefill_tokens_per_second.into(),
            ),
        ];
        for (kind, name, help, read) in readings {
            let values = status
                .models
                .iter()
                .filter_map(|model| Some((label(&model.name), read(model.load.as_ref()?))));
            append(&mut text, kind, name, help, values);
        }
        text.push_str("# EOF\n");
        text
    }
}

/// What a number means to Prometheus.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It goes up and down.
    Gauge,
    /// It grows until it starts anew, and its samples are named `_total`.
    Counter,
}

fn append(
    text: &mut String,
    kind: Kind,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (String, f64)>,
) {
    let (kind, suffix) = match kind {
        Kind::Gauge => ("gauge", ""),
        Kind::Counter => ("counter", "_total"),
    };
    let _ = writeln!(
        text,
        "# HELP hearth_{name} {help}.\n# TYPE hearth_{name} {kind}"
    );
    for (labels, value) in values {
        let _ = writeln!(text, "hearth_{name}{suffix}{labels} {value}");
    }
}
