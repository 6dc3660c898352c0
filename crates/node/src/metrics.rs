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

/// Labels of a generation, as OpenTelemetry names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GenerationLabels {
    /// `chat`, `text_completion` or `embeddings`.
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    /// Stable name of the error; empty if there was none.
    error_type: String,
}

/// Labels of tokens, as OpenTelemetry names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    /// `input` or `output`.
    gen_ai_token_type: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counters the handlers write. Those of generations have the names, labels and buckets of OpenTelemetry's conventions
/// for generative AI, version 1.37, in Prometheus' spelling.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histograms<GenerationLabels>,
    first_token: Histograms<GenerationLabels>,
    each_token: Histograms<GenerationLabels>,
    tokens: Histograms<TokenLabels>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register(
            "hearth_http_requests",
            "Requests by route and status",
            requests.clone(),
        );
        let duration: Histograms<GenerationLabels> = Family::new_with_constructor(|| {
            Histogram::new([
                0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
                81.92,
            ])
        });
        let first_token: Histograms<GenerationLabels> = Family::new_with_constructor(|| {
            Histogram::new([
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
                7.5, 10.0,
            ])
        });
        let each_token: Histograms<GenerationLabels> = Family::new_with_constructor(|| {
            Histogram::new([
                0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
            ])
        });
        let tokens: Histograms<TokenLabels> = Family::new_with_constructor(|| {
            Histogram::new((0..14).map(|power| f64::from(1u32 << (2 * power))))
        });
        for (name, help, histogram) in [
            (
                "gen_ai_server_request_duration_seconds",
                "From a request to the end of its answer",
                &duration,
            ),
            (
                "gen_ai_server_time_to_first_token_seconds",
                "From a request to its first token",
                &first_token,
            ),
            (
                "gen_ai_server_time_per_output_token_seconds",
                "Between the tokens after the first",
                &each_token,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of prompts and answers",
            tokens.clone(),
        );
        Self {
            registry,
            requests,
            duration,
            first_token,
            each_token,
            tokens,
        }
    }
}

/// Who generates, by the conventions' name for it.
const PROVIDER: &str = "hearth";

/// A generation as the counters see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed<'a> {
    /// `chat`, `text_completion` or `embeddings`.
    pub operation: &'static str,
    /// The model that answers.
    pub model: &'a str,
}

impl Observed<'_> {
    fn labels(self, error: &str) -> GenerationLabels {
        GenerationLabels {
            gen_ai_operation_name: self.operation,
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: self.model.to_owned(),
            error_type: error.to_owned(),
        }
    }

    fn tokens(self, kind: &'static str) -> TokenLabels {
        TokenLabels {
            gen_ai_operation_name: self.operation,
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: self.model.to_owned(),
            gen_ai_token_type: kind,
        }
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

    /// An answer ended: its tokens, how long it took, and its first token.
    pub fn answered(
        &self,
        observed: Observed,
        (prompt, generated): (u32, u32),
        took: Duration,
        first: Option<Duration>,
    ) {
        let labels = observed.labels("");
        let seconds = |family: &Histograms<GenerationLabels>, seconds: f64| {
            family.get_or_create(&labels).observe(seconds);
        };
        seconds(&self.duration, took.as_secs_f64());
        if let Some(first) = first {
            seconds(&self.first_token, first.as_secs_f64());
            if generated > 1 {
                let rest = took.saturating_sub(first).as_secs_f64();
                seconds(&self.each_token, rest / f64::from(generated - 1));
            }
        }
        for (kind, count) in [("input", prompt), ("output", generated)] {
            let tokens = self.tokens.get_or_create(&observed.tokens(kind));
            tokens.observe(count.into());
        }
    }

    /// Texts with so many tokens were embedded.
    pub fn embedded(&self, model: &str, tokens: u32) {
        let observed = Observed {
            operation: "embeddings",
            model,
        };
        let counted = self.tokens.get_or_create(&observed.tokens("input"));
        counted.observe(tokens.into());
    }

    /// An answer broke off.
    pub fn failed(&self, observed: Observed, error: &str, took: Duration) {
        let labels = observed.labels(error);
        self.duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
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
