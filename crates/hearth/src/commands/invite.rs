//! `hearth invite`: a ticket with which another machine joins.

use clap::Args;
use hearth_protocol::peers::{Invitation, Invite};
use hyper::Method;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use super::Context;
use crate::addressed;
use crate::client::understood;
use crate::config::duration;
use crate::failure::{Failure, Outcome};
use crate::screen::{print, println};

/// Flags of `hearth invite`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth invite                     a ticket for one machine, good for a day
  hearth invite --expires 10m
  hearth invite --json | jq -r .ticket

On the other machine: hearth join TICKET")]
pub struct InviteArgs {
    /// How long the ticket is good for, from 1m to 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    expires: String,
    /// Do not draw the QR code
    #[arg(long)]
    no_qr: bool,
}

/// Prints a ticket.
pub async fn run(context: &Context, args: &InviteArgs) -> Outcome {
    let expires = duration(&args.expires).ok_or_else(|| {
        Failure::usage(format!("--expires: `{}` is no time", args.expires))
            .fix("use 10m, 24h or 7d")
    })?;
    if !(60..=7 * 24 * 3_600).contains(&expires.as_secs()) {
        return Err(
            Failure::usage(format!("--expires: {} is not from 1m to 7d", args.expires))
                .fix("use 10m, 24h or 7d"),
        );
    }
    let (client, _) = addressed::meant(&context.config).await?;
    let wanted = Invite {
        expires_in: Some(expires.as_secs()),
    };
    let answer: Value = client
        .ask(Method::POST, "/household/invite", Some(&json!(wanted)))
        .await?;
    if context.screen.json {
        println(&answer.to_string());
        return Ok(());
    }
    let invitation: Invitation = understood(answer)?;
    if !args.no_qr && context.screen.is_live() {
        // Capital letters and digits alone take a smaller code.
        match QrCode::new(invitation.ticket.as_bytes()) {
            Ok(code) => println(
                &code
                    .render::<Dense1x2>()
                    .dark_color(Dense1x2::Light)
                    .light_color(Dense1x2::Dark)
                    .build(),
            ),
            Err(error) => context.screen.note(&format!("no QR code: {error}")),
        }
    }
    print(&format!("{}\n", invitation.ticket));
    let places: Vec<String> = invitation
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    context.screen.note(&format!(
        "good for one machine and {}; run there: hearth join TICKET\nthis machine waits for it at {}",
        args.expires,
        places.join(", ")
    ));
    Ok(())
}
