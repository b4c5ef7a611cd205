//! The shard as a whole.

mod bounds;
mod export;
mod import;
mod measure;
mod monitor;
mod next_hops;
mod restart;
mod sent;

use super::testing::*;
use crate::origin::LocalTarget;
use crate::policy::RouteSource;
use crate::session::RouteChange;
use crate::types::{Asn, Family};

#[test]
fn a_route_goes_from_one_peer_to_the_kernel_and_to_another_peer() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
    let told = bench.told_of(2, "192.0.2.0/24").unwrap();
    assert_eq!((told.as_path.first(), told.local_pref), (Some(Asn(65001)), Some(100)));
    assert_eq!(bench.told_of(1, "192.0.2.0/24"), None, "E1");
    assert_eq!(bench.sent(2), ["+192.0.2.0/24"]);
    assert_eq!(bench.ended[&crate::types::PeerId(2)], Family::ALL);
    bench.withdraw(1, "192.0.2.0/24");
    assert_eq!((bench.fib("192.0.2.0/24"), bench.sent(2)), ("none".to_owned(), vec!["-192.0.2.0/24".to_owned()]));
}

#[test]
fn a_local_route_is_told_with_our_own_address() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    assert_eq!(bench.fib("10.244.1.0/26"), "blackhole");
    let told = bench.told_of(1, "10.244.1.0/26").unwrap();
    assert_eq!((told.next_hop.address(), told.as_path.first(), told.local_pref), (ip("10.0.0.100"), Some(Asn(US)), None));
    bench.local(RouteSource::Block, "10.244.1.0/26", None);
    assert_eq!((bench.fib("10.244.1.0/26").as_str(), bench.told(1).len()), ("none", 0));
}

#[test]
fn d1_stale_paths_compete_as_fresh_and_identical_renewal_says_nothing() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    for prefix in ["192.0.2.0/24", "198.51.100.0/24"] {
        bench.announce(1, prefix, attributes("10.0.0.1", &[65001]));
    }
    bench.sent(2);
    let changes = bench.fib_changes;
    bench.down(1, BOTH);
    assert!(bench.loc_rib("192.0.2.0/24")[0].stale);
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert!(!bench.loc_rib("192.0.2.0/24")[0].stale);
    assert_eq!((bench.fib_changes, bench.sent(2).len()), (changes, 0));
    bench.hear(1, vec![RouteChange::EndOfRib(Family::IPV4_UNICAST)]);
    bench.round();
    assert_eq!((bench.fib_changes, bench.sent(2)), (changes + 1, vec!["-198.51.100.0/24".to_owned()]));
}

#[test]
fn d4_failover_is_one_update() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.up(3, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.announce(2, "192.0.2.0/24", attributes("10.0.0.2", &[65002, 65002]));
    let (candidates, told) = bench.explain("192.0.2.0/24");
    assert_eq!(
        candidates.iter().map(|c| c.because.as_str()).collect::<Vec<_>>(),
        ["better than all others", "AS_PATH length 2, against 1 by 10.0.0.1"]
    );
    assert_eq!(told.iter().map(|ad| ad.yes).collect::<Vec<_>>(), [false, true, true]);
    bench.sent(3);
    bench.down(1, NONE);
    assert_eq!(bench.sent(3), ["+192.0.2.0/24"]);
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.2");
}
