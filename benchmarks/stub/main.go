// Command stub is the other end of the benchmarks: an S3 server in memory that costs next to nothing, a proxy that
// makes a network out of the loopback, and a launcher that measures one process tree.
//
//	stub serve   [-dir DIR] [-verify-sha256]    S3 by HTTP and HTTPS, and its own levers; prints where
//	stub proxy   -to HOST:PORT [-rtt 20ms] [-rate BYTES]
//	stub measure -report FILE [-timeout 2m] COMMAND [ARGUMENT...]
//
// It is for one machine: it listens on the loopback, checks no signature and keeps everything in memory.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
)

func main() {
	deeds := map[string]func([]string) error{"serve": serve, "proxy": proxy, "measure": measure}
	if len(os.Args) < 2 || deeds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: stub serve|proxy|measure [options]")
		os.Exit(2)
	}
	if err := deeds[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "stub:", err)
		os.Exit(1)
	}
}

// listen takes a free port of the loopback.
func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// announce tells whoever started this program what it needs to know, as one line of JSON.
func announce(facts map[string]string) error { return json.NewEncoder(os.Stdout).Encode(facts) }
