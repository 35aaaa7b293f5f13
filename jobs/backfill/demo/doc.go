// Package demo is a small atproto network inside this process: PDS hosts and a
// did:plc directory that speak real XRPC over HTTP on loopback, and hold real,
// signed repositories. It behaves badly on purpose.
//
// Everything is a pure function of (seed, did, try): which host an account is on,
// its key, its records, whether it was deleted, and which fault a request for it
// meets. So a run that is killed and resumed meets the same faults, and a test
// can say in advance how a run must end (Settings.Expect, Settings.Rows). Only
// two things are not: signatures, which are random by nature, and throttling by
// a host that is really asked too often.
//
// Items name logical hosts (pds-3.demo.invalid); Network.DialContext maps them to
// the ports this process opened. The number of the try travels in the header
// X-Demo-Try.
package demo
