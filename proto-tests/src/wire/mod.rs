//! Proof of the wire: recorded and made-up messages as text, mutations of them, and a second codec as oracle.

pub mod generate;
pub mod mutate;
pub mod oracle;
pub mod vector;

use margay::types::{Asn, PerFamily};
use margay::wire::{Context, EXTENDED_LIMIT};

/// A context in words, as vectors begin with: `ebgp as4 ipv4 ipv6 add-path first-as 64512`.
pub fn context(words: &str) -> Result<Context, String> {
    let mut context = Context::default();
    let mut words = words.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "ebgp" => context.ebgp = true,
            "ibgp" => context.ebgp = false,
            "as4" => context.four_octet_as = true,
            "ipv4" => context.families.ipv4 = true,
            "ipv6" => context.families.ipv6 = true,
            "add-path" => {
                let both = PerFamily { ipv4: true, ipv6: true };
                (context.add_path_send, context.add_path_receive) = (both, both);
            }
            "extended-next-hop" => context.extended_next_hop = true,
            "enhanced-refresh" => context.enhanced_refresh = true,
            "extended-messages" => (context.send_limit, context.receive_limit) = (EXTENDED_LIMIT, EXTENDED_LIMIT),
            "as-set" => context.allow_as_set = true,
            "first-as" => {
                let asn = words.next().unwrap_or_default();
                context.peer_asn = asn.parse::<Asn>().map_err(|error| error.to_string())?;
                context.check_first_as = true;
            }
            _ => return Err(format!("`{word}` is no word of a session")),
        }
    }
    Ok(context)
}
