package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd keeps a store of one member on loopback until it is told to end. Nothing is synced to the
// disk: tests kill processes, not machines.
func runEtcd() int {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	folder := flags.String("data-dir", "", "where it keeps its data")
	clients := flags.String("listen-client-url", "", "where clients reach it")
	peers := flags.String("listen-peer-url", "", "where its peers would reach it")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2
	}
	if err := serveEtcd(*folder, *clients, *peers); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	return 0
}

func serveEtcd(folder, clients, peers string) error {
	clientURL, err := url.Parse(clients)
	if err != nil {
		return err
	}
	peerURL, err := url.Parse(peers)
	if err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = folder
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer etcd.Close()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-told:
		return nil
	case err := <-etcd.Err():
		return err
	}
}
