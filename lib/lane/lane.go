// Package lane works off task after task: what bf-chunks --claim, bf-dump and bf-load
// do around each of them. How long it goes on, what ends it, what is said of a task,
// and what has failed for good and what for one task only.
//
//	Claim   records out, to a lane that gives each back by being done with it
//	Dump    records in, a stream out
//	Load    a stream in, results out
package lane
