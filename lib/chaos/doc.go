// Package chaos proves that nothing can go wrong with the users' data: its
// tests run real backfills between two servers while processes, connections
// and servers are killed, stopped and cut at random, by signals from a
// terminal, and by hostile input. It has no code of its own.
//
//	make chaos CHAOS_TIME=10m CHAOS_SEED=7
//
// runs the random part for as long as one likes; make test runs a few seconds
// of it.
package chaos
