//! Traces: a span for each call that is sampled, exported over OTLP, under the span of whoever called (W3C Trace Context, in the
//! metadata `traceparent`). Without a collector to send them to there are none, and they cost nothing.
//!
//! What is gathered from many calls into one (predictions, decisions, leases) belongs to none of them, and is not in their traces.

use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use super::trust::TrustError;

/// The part of the traces that begin here that is sampled, unless told otherwise.
const SAMPLE: f64 = 0.01;

/// Where traces go. The variables are OpenTelemetry's own.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// A collector of traces, http://HOST:4317 (OTLP over gRPC). Without one there are none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here is sampled, 0 to 1; of those that come from elsewhere their beginning decides.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = SAMPLE)]
    pub trace_sample: f64,
}

struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

static TRACES: OnceLock<Traces> = OnceLock::new();

/// From now on the process traces its calls, where it was told to. For the start of a program, on its runtime: the first call holds.
///
/// # Errors
/// A setting that cannot be.
pub fn trace(service: &str, args: &TraceArgs) -> std::io::Result<()> {
    let Some(endpoint) = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else { return Ok(()) };
    if !(0.0..=1.0).contains(&args.trace_sample) {
        let problem = format!("{} is not within 0 to 1", args.trace_sample);
        return Err(TrustError::Setting { setting: "OTEL_TRACES_SAMPLER_ARG", problem }.into());
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|e| TrustError::Setting { setting: "OTEL_EXPORTER_OTLP_ENDPOINT", problem: e.to_string() })?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter) // in a thread of its own, with a bounded queue
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.trace_sample))))
        .with_resource(Resource::builder().with_service_name(service.to_owned()).build())
        .build();
    let tracer = provider.tracer("kiki");
    drop(TRACES.set(Traces { tracer, provider }));
    Ok(())
}

/// Sends what has not been sent yet: before the program ends.
pub(super) fn flush() {
    if let Some(traces) = TRACES.get()
        && let Err(error) = traces.provider.force_flush()
    {
        tracing::warn!(%error, "the last traces are lost");
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// The span of a call that begins, under that of whoever called; none where there are no traces.
pub(super) fn begin(service: &'static str, method: &'static str, headers: &HeaderMap) -> Option<Context> {
    let traces = TRACES.get()?;
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    let of_rpc = [KeyValue::new("rpc.system", "grpc"), KeyValue::new("rpc.service", service), KeyValue::new("rpc.method", method)];
    let span = traces.tracer.span_builder(format!("{service}/{method}")).with_kind(SpanKind::Server).with_attributes(of_rpc);
    Some(parent.with_span(traces.tracer.build_with_context(span, &parent)))
}

/// Ends a call's span with gRPC's code.
pub(super) fn end(span: &Context, code: usize, name: &'static str) {
    let span = span.span();
    span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::try_from(code).unwrap_or(i64::MAX)));
    // As OpenTelemetry's conventions have it for servers: what the caller did wrong is no error of ours.
    if ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"].contains(&name) {
        span.set_status(Status::error(name));
    }
    span.end();
}

/// Tells whom this calls what span it is in, if it is in one.
pub(super) fn pass_on(headers: &mut HeaderMap) {
    if TRACES.get().is_none() {
        return;
    }
    let context = Context::current();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
    }
}
