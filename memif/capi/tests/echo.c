// Two ports of one process: one sends, one sends back. Ends with 0 if every packet came back as it was.

#define _POSIX_C_SOURCE 200809L
#include "wharf_memif.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 32, SIZE = 2048, PACKETS = 1000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static uint8_t memory[BURST][SIZE];
static wharf_memif_packet packets[BURST];

static void rooms(void) {
    for (int i = 0; i < BURST; i++) {
        packets[i].data = memory[i];
        packets[i].size = SIZE;
        packets[i].len = 0;
    }
}

int main(int argc, char **argv) {
    if (argc != 2) fail("usage", "echo SOCKET");
    if (wharf_memif_survive_sigbus() != 0) fail("sigaction", "refused");
    char error[200];
    wharf_memif_options options;
    wharf_memif_options_init(&options);
    if (wharf_memif_open(&options, error, sizeof error) != NULL) fail("no socket", "opened");
    if (strstr(error, "socket address") == NULL) fail("no socket", error);
    options.socket = argv[1];
    options.role = 7;
    if (wharf_memif_open(&options, error, sizeof error) != NULL) fail("role 7", "opened");
    options.secret = "open sesame";
    options.role = WHARF_MEMIF_ROLE_SERVER;
    wharf_memif_port *server = wharf_memif_open(&options, error, sizeof error);
    if (server == NULL) fail("server", error);
    options.role = WHARF_MEMIF_ROLE_CLIENT;
    options.app_name = "echo.c";
    wharf_memif_port *client = wharf_memif_open(&options, NULL, 0);
    if (client == NULL) fail("client", "not opened");

    // By a loop of one's own: until both are up.
    double end = now() + 10;
    int up = 0;
    while (up < 2) {
        if (now() > end) fail("connect", wharf_memif_reason(client));
        wharf_memif_port *ports[] = {server, client};
        for (int i = 0; i < 2; i++) {
            wharf_memif_event event;
            while ((event = wharf_memif_process(ports[i])) != WHARF_MEMIF_EVENT_NONE) {
                if (event == WHARF_MEMIF_EVENT_UP) up++;
            }
        }
        struct pollfd fds[] = {{wharf_memif_fd(server), POLLIN, 0}, {wharf_memif_fd(client), POLLIN, 0}};
        poll(fds, 2, 1);
    }
    if (wharf_memif_rx_queues(client) != 1 || wharf_memif_tx_queues(server) != 1) fail("queues", "not 1");

    int sent = 0, back = 0;
    while (back < PACKETS) {
        if (now() > end) fail("echo", "packets are missing");
        int n = 0;
        for (; n < 8 && sent + n < PACKETS; n++) {
            rooms();
        }
        for (int i = 0; i < n; i++) {
            packets[i].len = 60 + (uint32_t)(sent + i) % 1400;
            memset(memory[i], (sent + i) & 0xff, packets[i].len);
        }
        sent += wharf_memif_tx_burst(client, 0, packets, (uint16_t)n);
        rooms();
        uint16_t got = wharf_memif_rx_burst(server, 0, packets, BURST);
        if (wharf_memif_tx_burst(server, 0, packets, got) != got) fail("echo", "ring full");
        rooms();
        got = wharf_memif_rx_burst(client, 0, packets, BURST);
        for (int i = 0; i < got; i++, back++) {
            if (packets[i].len != 60 + (uint32_t)back % 1400) fail("length", "wrong");
            for (uint32_t b = 0; b < packets[i].len; b++) {
                if (memory[i][b] != (back & 0xff)) fail("bytes", "wrong");
            }
        }
    }

    // Packets wake who waits.
    rooms();
    packets[0].len = 100;
    if (wharf_memif_arm(client) != true) fail("arm", "there is work");
    if (wharf_memif_tx_burst(server, 0, packets, 1) != 1) fail("one more", "ring full");
    struct pollfd fd = {wharf_memif_fd(client), POLLIN, 0};
    if (poll(&fd, 1, 5000) != 1) fail("wake", "nothing");
    wharf_memif_disarm(client);
    if (wharf_memif_rx_burst(client, 0, packets, BURST) != 1) fail("one more", "lost");

    wharf_memif_close(client);
    while (wharf_memif_wait(server, 100) != WHARF_MEMIF_EVENT_DOWN) {
        if (now() > end) fail("down", "not noticed");
    }
    if (strlen(wharf_memif_reason(server)) == 0) fail("reason", "none");
    if (wharf_memif_rx_burst(server, 0, packets, BURST) != 0) fail("down", "receives");
    wharf_memif_close(server);
    wharf_memif_close(NULL);
    if (wharf_memif_wait(NULL, 0) != WHARF_MEMIF_EVENT_NONE || wharf_memif_fd(NULL) != -1) fail("NULL", "is a port");
    printf("%d packets, version %06x\n", back, wharf_memif_version());
    return 0;
}
