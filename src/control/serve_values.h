/*
 * serve_values.h - setters and printers of the daemon's structured values; for the table in
 * serve_options.c only.
 *
 * Each gets the struct cfsr_serve_command itself as field (offset 0), because a list is an array
 * and its count.
 */
#ifndef CFSR_CONTROL_SERVE_VALUES_H
#define CFSR_CONTROL_SERVE_VALUES_H

#include <stdbool.h>
#include <stddef.h>

int cfsr_serve_set_listen(void *field, const char *text);
void cfsr_serve_reset_listen(void *field);
bool cfsr_serve_show_listen(const void *field, unsigned index, char *text_out, size_t len_bytes);

int cfsr_serve_set_peer(void *field, const char *text);
void cfsr_serve_reset_peers(void *field);
bool cfsr_serve_show_peer(const void *field, unsigned index, char *text_out, size_t len_bytes);

int cfsr_serve_set_rdma_gid(void *field, const char *text);
bool cfsr_serve_show_rdma_gid(const void *field, unsigned index, char *text_out, size_t len_bytes);

int cfsr_serve_set_cores(void *field, const char *text);
bool cfsr_serve_show_cores(const void *field, unsigned index, char *text_out, size_t len_bytes);

int cfsr_serve_set_compress(void *field, const char *text);
bool cfsr_serve_show_compress(const void *field, unsigned index, char *text_out, size_t len_bytes);

#endif
