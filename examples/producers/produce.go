// REDIS_URL=redis://127.0.0.1:6379 go run produce.go QUEUE: in Redis' own protocol, to need no package
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
)

func main() {
	queue := os.Args[1]
	server, err := url.Parse(os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	conn, err := net.Dial("tcp", server.Host)
	if err != nil {
		log.Fatal(err)
	}
	replies := bufio.NewReader(conn)
	for _, title := range []string{"Draft", "Hello"} {
		update := map[string]any{"$set": map[string]any{"title": title}, "$inc": map[string]any{"edits": 1}}
		event, _ := json.Marshal(map[string]any{"collection": "notes", "id": "n1", "update": update})
		fmt.Fprintf(conn, "*3\r\n$5\r\nRPUSH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(queue), queue, len(event), event)
		reply, err := replies.ReadString('\n')
		if err != nil || reply[0] != ':' {
			log.Fatal("not accepted: ", reply, err)
		}
		fmt.Println("accepted; in the queue:", reply[1:len(reply)-2])
	}
}
