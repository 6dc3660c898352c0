//! Traces for the owner's collector: one span for each generation, sent over HTTP as OTLP, when `otlp_endpoint` says where.
//!
//! The node tells of a generation that is over ([`Listener`]); here it becomes a span by OpenTelemetry's conventions for
//! generative AI, version 1.37, without a word of what was asked or answered. Spans wait for a thread of their own. What
//! that cannot send is lost and counted: no request ever waits for a collector.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hearth_node::{Finished, Listener};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
    SpanProcessor,
};

use crate::config::{Config, Key};
use crate::failure::{Failure, Outcome};
use crate::network;
use crate::version::VERSION;

/// The conventions that names and values follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
/// Where a collector takes traces, below its address (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// Spans that may wait.
const MOST: usize = 2048;
/// Spans sent at once.
const BATCH: usize = 256;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the node waits for the last spans.
const LAST: Duration = Duration::from_secs(2);
/// A collector that is away is mentioned this often.
const QUIET: Duration = Duration::from_secs(60);

/// Spans on their way to a collector.
#[derive(Debug)]
pub struct Traces {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    ledger: Arc<Ledger>,
}

impl Traces {
    /// Starts the thread that sends; `None` unless the configuration says where to.
    pub fn start(config: &Config) -> Outcome<Option<Self>> {
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(None);
        };
        if config.fetch.offline {
            tracing::warn!("no traces are sent to {endpoint}: this node is offline");
            return Ok(None);
        }
        let url = match endpoint.trim_end_matches('/') {
            full if full.ends_with(PATH) => full.to_owned(),
            base => format!("{base}{PATH}"),
        };
        let ledger = Arc::new(Ledger {
            endpoint: endpoint.clone(),
            waiting: AtomicUsize::new(0),
            lost: Mutex::new(Lost {
                count: 0,
                cause: None,
                mentioned: None,
            }),
        });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .tls_config(network::tls())
            .build()
            .into();
        let client = Client {
            agent,
            ledger: Arc::clone(&ledger),
        };
        let otlp = Otlp::builder()
            .with_http()
            .with_endpoint(url)
            .with_timeout(PATIENCE)
            // The queue must move on; what comes later matters more.
            .with_retry_policy(RetryPolicy::disabled())
            .with_http_client(client)
            .build()
            .map_err(|error| {
                let origin = config.origin(Key::OtlpEndpoint);
                Failure::usage(format!(
                    "{origin}: traces cannot be sent to {endpoint}: {error}"
                ))
                .fix(format!("use {}", Key::OtlpEndpoint.accepts()))
            })?;
        let exporter = Counting {
            inner: otlp,
            ledger: Arc::clone(&ledger),
        };
        let mut processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_max_queue_size(MOST)
                    .with_max_export_batch_size(BATCH)
                    .with_scheduled_delay(DELAY)
                    .build(),
            )
            .build();
        processor.set_resource(&resource());
        Ok(Some(Self {
            processor,
            scope: InstrumentationScope::builder("hearth")
                .with_version(VERSION)
                .with_schema_url(SCHEMA)
                .build(),
            ledger,
        }))
    }

    /// Sends what waits, for at most two seconds. Blocks.
    pub fn end(&self) {
        if self.processor.shutdown_with_timeout(LAST).is_err() {
            // The thread may be in the middle of what it cannot send; the process ends without it.
            let waiting = self.ledger.waiting.swap(0, Ordering::Relaxed);
            self.ledger.lose(waiting, "the node ends");
        }
        let lost = self.ledger.lost().count;
        if lost > 0 {
            tracing::warn!(lost, "not all traces reached {}", self.ledger.endpoint);
        }
    }
}

impl Listener for Traces {
    fn finished(&self, generation: Finished) {
        if self.ledger.waiting.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.ledger.waiting.fetch_sub(1, Ordering::Relaxed);
            return self.ledger.lose(1, "too many wait");
        }
        self.processor.on_end(span(generation, self.scope.clone()));
    }
}

/// Who sends: this program, and what `OTEL_RESOURCE_ATTRIBUTES` adds.
fn resource() -> Resource {
    let own = [
        KeyValue::new("service.name", "hearth"),
        KeyValue::new("service.version", VERSION),
    ];
    Resource::builder_empty()
        .with_schema_url(own, SCHEMA)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

/// A generation as a span.
fn span(generation: Finished, scope: InstrumentationScope) -> SpanData {
    let place = generation.place;
    let status = match &generation.error {
        Some(error) => Status::error(error.clone()),
        None => Status::Unset,
    };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(place.trace.to_be_bytes()),
            SpanId::from_bytes(generation.span.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: match place.parent {
            Some(parent) => SpanId::from_bytes(parent.to_be_bytes()),
            None => SpanId::INVALID,
        },
        parent_span_is_remote: place.parent.is_some(),
        // The model runs in this process.
        span_kind: SpanKind::Internal,
        name: format!("{} {}", generation.operation, generation.asked_model).into(),
        start_time: generation.begun,
        end_time: generation.begun + generation.took,
        attributes: attributes(generation),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: scope,
    }
}

/// What the conventions ask for. Stop texts are left out: they are words of the request.
fn attributes(generation: Finished) -> Vec<KeyValue> {
    let asked = generation.asked;
    let whole = |number: Option<u32>| number.map(|number| Value::I64(number.into()));
    // By way of the shortest text that is the same number: 0.7 stays 0.7.
    let real = |number: Option<f32>| Some(Value::F64(number?.to_string().parse().ok()?));
    let text = |text: Option<String>| text.map(Value::from);
    let reasons = generation.reasons.iter().map(|reason| (*reason).into());
    let reasons: Vec<StringValue> = reasons.collect();
    let first = generation.first_token.map(|first| first.as_secs_f64());
    [
        ("gen_ai.operation.name", Some(generation.operation.into())),
        ("gen_ai.provider.name", Some("hearth".into())),
        ("gen_ai.request.model", Some(generation.asked_model.into())),
        ("gen_ai.response.model", text(generation.model)),
        ("gen_ai.response.id", text(generation.response)),
        ("gen_ai.request.max_tokens", whole(asked.max_tokens)),
        ("gen_ai.request.temperature", real(asked.temperature)),
        ("gen_ai.request.top_p", real(asked.top_p)),
        (
            "gen_ai.request.top_k",
            asked.top_k.map(|top| Value::F64(top.into())),
        ),
        (
            "gen_ai.request.seed",
            asked.seed.map(|seed| Value::I64(seed as i64)),
        ),
        (
            "gen_ai.request.frequency_penalty",
            real(asked.frequency_penalty),
        ),
        (
            "gen_ai.request.presence_penalty",
            real(asked.presence_penalty),
        ),
        ("gen_ai.request.choice.count", whole(asked.choices)),
        ("gen_ai.embeddings.dimension.count", whole(asked.dimensions)),
        ("gen_ai.usage.input_tokens", whole(generation.input_tokens)),
        (
            "gen_ai.usage.output_tokens",
            whole(generation.output_tokens),
        ),
        (
            "gen_ai.response.finish_reasons",
            (!reasons.is_empty()).then_some(Value::Array(Array::String(reasons))),
        ),
        ("error.type", text(generation.error)),
        (
            "server.address",
            Some(generation.server.ip().to_string().into()),
        ),
        (
            "server.port",
            Some(Value::I64(generation.server.port().into())),
        ),
        ("hearth.time_to_first_token", first.map(Value::F64)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
    .collect()
}

/// Spans on their way, and those that never arrived.
#[derive(Debug)]
struct Ledger {
    endpoint: String,
    waiting: AtomicUsize,
    lost: Mutex<Lost>,
}

#[derive(Debug)]
struct Lost {
    count: usize,
    /// What the client met, which the exporter does not pass on.
    cause: Option<String>,
    mentioned: Option<Instant>,
}

impl Ledger {
    fn lost(&self) -> MutexGuard<'_, Lost> {
        // Plain values, valid after any panic.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, and says so unless it did lately.
    fn lose(&self, count: usize, reason: &str) {
        let mut lost = self.lost();
        lost.count += count;
        if lost.mentioned.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        lost.mentioned = Some(Instant::now());
        let cause = lost.cause.take();
        let reason = cause.as_deref().unwrap_or(reason);
        let lost = lost.count;
        tracing::warn!(lost, "traces do not reach {}: {reason}", self.endpoint);
    }
}

/// Keeps the ledger of an exporter.
#[derive(Debug)]
struct Counting {
    inner: Otlp,
    ledger: Arc<Ledger>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.inner.export(batch).await;
        // The end of the node may have written them off.
        let forget = |waiting: usize| Some(waiting.saturating_sub(count));
        let _ = self
            .ledger
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, forget);
        if let Err(error) = &sent {
            let reason = match error {
                OTelSdkError::InternalFailure(reason) => reason.clone(),
                other => other.to_string(),
            };
            self.ledger.lose(count, &reason);
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// OTLP over the HTTP client that is here already. Blocks: it is only used on the thread that sends.
struct Client {
    agent: ureq::Agent,
    ledger: Arc<Ledger>,
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.to_vec());
        let response = self.agent.run(request).inspect_err(|error| {
            self.ledger.lost().cause = Some(error.to_string());
        })?;
        let (head, mut body) = response.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}
