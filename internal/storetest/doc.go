// Package storetest is the contract of all store adapters as one suite: what the
// ports' comments promise, tried out. Only the adapters' tests import it.
//
// An adapter hands over a function that makes an empty store. Time passes by
// Clock.Sleep, so a store on a virtual clock takes none.
package storetest
