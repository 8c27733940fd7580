// memif for C: one interface that keeps itself connected. Library: wharf_memif (static and shared).
//
// Made from memif/capi/src/lib.rs by cbindgen (memif/capi/header.sh); change it there.

#ifndef WHARF_MEMIF_H
#define WHARF_MEMIF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// What happened to a port.
typedef enum wharf_memif_event {
  // Nothing, or packets have come.
  WHARF_MEMIF_EVENT_NONE = 0,
  // The peer is there.
  WHARF_MEMIF_EVENT_UP = 1,
  // The peer is gone; the port goes on trying. wharf_memif_reason says why.
  WHARF_MEMIF_EVENT_DOWN = 2,
  // An attempt to connect failed, or a client was refused; the port goes on trying. wharf_memif_reason says why.
  WHARF_MEMIF_EVENT_FAILED = 3,
} wharf_memif_event;

// Which side of the protocol.
typedef enum wharf_memif_role {
  // Connects, and brings the memory (slave).
  WHARF_MEMIF_ROLE_CLIENT = 0,
  // Listens (master).
  WHARF_MEMIF_ROLE_SERVER = 1,
} wharf_memif_role;

// What packets start with; both sides must agree.
typedef enum wharf_memif_mode {
  // An Ethernet header.
  WHARF_MEMIF_MODE_ETHERNET = 0,
  // An IPv4 or IPv6 header.
  WHARF_MEMIF_MODE_IP = 1,
} wharf_memif_mode;

// One interface that keeps itself connected.
typedef struct wharf_memif_port wharf_memif_port;

// What a port is to be. Fill it by wharf_memif_options_init, then change what is to be different.
typedef struct wharf_memif_options {
  // Path of the socket, or @NAME, or abstract:NAME[,netns_name=PATH]. Must be set.
  const char *socket;
  // Number of the interface on the socket.
  uint32_t id;
  // A wharf_memif_role; client unless changed.
  uint32_t role;
  // A wharf_memif_mode; Ethernet unless changed.
  uint32_t mode;
  // Name of the application, told to the peer, or NULL.
  const char *app_name;
  // Secret of the interface, up to 24 bytes, or NULL.
  const char *secret;
  // Receive queues, 1 to 255. A server takes what the client brings, up to the greater of both numbers.
  uint16_t rx_queues;
  // Transmit queues, likewise.
  uint16_t tx_queues;
  // Slots of a ring as a power of two, 0 to 14. The client's word counts.
  uint8_t log2_ring_size;
  // Bytes of a buffer in the rings, 64 to 65536. The client's word counts.
  uint32_t buffer_size;
} wharf_memif_options;

// A packet in memory of the caller.
typedef struct wharf_memif_packet {
  // Its bytes.
  uint8_t *data;
  // To receive: bytes that fit there.
  uint32_t size;
  // Bytes of the packet: set by wharf_memif_rx_burst, read by wharf_memif_tx_burst.
  uint32_t len;
} wharf_memif_packet;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library: major << 16 | minor << 8 | patch. Within one major version (within one minor version
// while major is 0) nothing is taken away, and structs don't change.
uint32_t wharf_memif_version(void);

// Installs, once for the process, a handler of SIGBUS that keeps shared memory which goes away from ending it; every
// other SIGBUS goes to the handler that was there before. Returns 0, or -1 if the kernel refuses.
int wharf_memif_survive_sigbus(void);

// Fills options with what most want: a client of interface 0, Ethernet, one queue each way, rings of 1024 buffers of
// 2048 bytes.
void wharf_memif_options_init(struct wharf_memif_options *options);

// Opens a port; it connects by wharf_memif_process or wharf_memif_wait. Returns NULL if the options can't work, or a
// server can't listen; then error, of error_size bytes (both may be 0), says why.
struct wharf_memif_port *wharf_memif_open(const struct wharf_memif_options *options,
                                          char *error,
                                          size_t error_size);

// Disconnects and frees a port.
void wharf_memif_close(struct wharf_memif_port *port);

// The descriptor to poll for input.
int wharf_memif_fd(const struct wharf_memif_port *port);

// Milliseconds until wharf_memif_process must be called even if nothing is readable, as poll(2) takes them: -1 for
// never.
int wharf_memif_timeout(const struct wharf_memif_port *port);

// Asks for a wake-up by packets. False if there is something to do already: then don't sleep.
bool wharf_memif_arm(struct wharf_memif_port *port);

// No wake-ups by packets any more: the queues are polled.
void wharf_memif_disarm(struct wharf_memif_port *port);

// Goes on with whatever is ready, and says what happened: call it until it says WHARF_MEMIF_EVENT_NONE.
enum wharf_memif_event wharf_memif_process(struct wharf_memif_port *port);

// Sleeps until there are packets, something else has happened, or so many milliseconds have passed (-1: for ever), and
// says what happened. Also returns when a signal comes. Does all that fd, timeout, arm, disarm and process do.
enum wharf_memif_event wharf_memif_wait(struct wharf_memif_port *port,
                                        int milliseconds);

// Why the last event came, in words; empty if there is nothing to say. Valid until the next event of this port.
const char *wharf_memif_reason(const struct wharf_memif_port *port);

// Receive queues while there is a peer, else 0.
uint16_t wharf_memif_rx_queues(struct wharf_memif_port *port);

// Transmit queues while there is a peer, else 0.
uint16_t wharf_memif_tx_queues(struct wharf_memif_port *port);

// Receives up to count packets (at most 256), each into the memory of one of packets, in order, and returns how many. A
// packet that is longer than that memory is lost.
uint16_t wharf_memif_rx_burst(struct wharf_memif_port *port,
                              uint16_t queue,
                              struct wharf_memif_packet *packets,
                              uint16_t count);

// Sends packets from the front (at most 256), wakes the peer if it sleeps, and returns how many were dealt with. The
// others found the ring full, and may be offered again.
uint16_t wharf_memif_tx_burst(struct wharf_memif_port *port,
                              uint16_t queue,
                              const struct wharf_memif_packet *packets,
                              uint16_t count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WHARF_MEMIF_H */
