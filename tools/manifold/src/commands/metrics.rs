//! `metrics`: what the daemon counts, for whoever gathers it.

use crate::control::client::Client;
use crate::control::{MetricsForm, Reply, Request};
use crate::failure::Result;
use crate::print::Output;
use crate::reach::{Context, mismatch, not_mounted};

/// Prints the metrics.
pub(super) async fn metrics(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let Some(mut client) = Client::connect(&context.library.socket()).await? else {
        return Err(not_mounted(&context.library));
    };
    let form = if out.json() {
        MetricsForm::Json
    } else {
        MetricsForm::Text
    };
    match client.ask(Request::Metrics { form }).await? {
        Reply::Metrics { text: Some(text), .. } => out.line(text.trim_end()),
        Reply::Metrics {
            families: Some(families),
            ..
        } => out.value(&families),
        _ => Err(mismatch()),
    }
}
