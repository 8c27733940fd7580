//! The list of nodes. Nothing is in the graph that is not here.

use crate::event::Events;
use crate::{acl, arp, ethernet, interface, ip4, l2, span, vxlan};
use wharf_engine::wake::Waker;
use wharf_engine::{FeatureOrder, GraphBuilder};

/// Adds all nodes and arcs of this crate to `list`. What they have to say comes out of the returned [`Events`],
/// and wakes `waker`.
pub fn nodes(list: &mut GraphBuilder, waker: Waker) -> Events {
    let events = Events::new(waker);
    let sender = || {
        let events = events.clone();
        move || events.sender()
    };
    let (arp_events, resolve_events, echo_events) = (sender(), sender(), sender());

    list.arc::<interface::DeviceInputArc>()
        .arc::<interface::InterfaceOutputArc>()
        .arc::<ip4::Ip4UnicastArc>()
        .arc::<ip4::Ip4OutputArc>()
        .arc::<l2::L2InputIp4Arc>()
        .arc::<l2::L2InputIp6Arc>()
        .arc::<l2::L2InputNonIpArc>()
        .arc::<l2::L2OutputIp4Arc>()
        .arc::<l2::L2OutputIp6Arc>()
        .arc::<l2::L2OutputNonIpArc>();
    list.node(|_| ethernet::EthernetInput::default())
        .node(|_| ethernet::SubInterfaceOutput)
        .node(|seed| l2::L2Input::new(l2::L2InputArcs::new(seed)))
        .node(|_| l2::L2InputFeatArcEnd)
        .node(|_| l2::L2Fwd::default())
        .node(|_| l2::L2Flood)
        .node(|seed| l2::L2Output { arcs: l2::L2OutputArcs::new(seed) })
        .node(|_| l2::ArpTermL2bd)
        .node(|seed| interface::InterfaceOutput::new(seed.arc()))
        .node(|_| arp::ArpInput)
        .node(move |_| arp::ArpReply { events: arp_events() })
        .node(|seed| ip4::Ip4Input::new(seed.arc()))
        .node(|_| ip4::Ip4Lookup::default())
        .node(|seed| ip4::Ip4Rewrite::new(seed.arc()))
        .node(move |_| ip4::Ip4Arp::new(resolve_events()))
        .node(|_| ip4::Ip4LoadBalance)
        .node(|_| ip4::Ip4Local)
        .node(|_| ip4::Ip4UdpLookup)
        .node(|_| ip4::Ip4Punt)
        .node(move |_| ip4::Ip4IcmpInput { events: echo_events() })
        .node(|_| ip4::Ip4IcmpEchoRequest)
        .node(|_| ip4::Ip4IcmpError::default())
        .node(|_| vxlan::Vxlan4Input::default())
        .node(|_| vxlan::Vxlan4Encap::default())
        .node(|_| span::SpanInput)
        .node(|_| span::SpanOutput)
        .node(|_| span::SpanL2Input)
        .node(|_| span::SpanL2Output);
    // The first and the last features of the L2 arcs.
    list.feature::<interface::DeviceInputArc, span::SpanInput>(FeatureOrder::default())
        .feature::<interface::InterfaceOutputArc, span::SpanOutput>(FeatureOrder::default())
        .feature::<l2::L2InputIp4Arc, span::SpanL2Input>(FeatureOrder::default())
        .feature::<l2::L2InputIp6Arc, span::SpanL2Input>(FeatureOrder::default())
        .feature::<l2::L2InputNonIpArc, span::SpanL2Input>(FeatureOrder::default());
    acl::nodes(list, &events);
    list.feature::<l2::L2OutputIp4Arc, span::SpanL2Output>(FeatureOrder::default())
        .feature::<l2::L2OutputIp6Arc, span::SpanL2Output>(FeatureOrder::default())
        .feature::<l2::L2OutputNonIpArc, span::SpanL2Output>(FeatureOrder::default());
    events
}
