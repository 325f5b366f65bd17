"""The dispatcher: assignments down to agents, statuses up from them, and who is alive. Leader only."""

from manager.dispatcher.channel import Channel, ChannelClosed, PeerIdentity
from manager.dispatcher.dispatcher import Dispatcher

__all__ = ["Channel", "ChannelClosed", "Dispatcher", "PeerIdentity"]
