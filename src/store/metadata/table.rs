//! Things by key, in the order in which they were first named.

use std::collections::BTreeMap;

/// A table that only grows.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    rows: Vec<V>,
    places: BTreeMap<K, usize>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { rows: Vec::new(), places: BTreeMap::new() }
    }
}

impl<K: Ord, V> Table<K, V> {
    /// All, in order of first appearance.
    pub fn iter(&self) -> std::slice::Iter<'_, V> {
        self.rows.iter()
    }

    /// The one of that key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|place| &self.rows[*place])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, V> {
        self.rows.iter_mut()
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.places.get(key).map(|place| &mut self.rows[*place])
    }

    /// Places of the keys from `first` on, as long as `wanted` holds of them.
    pub(super) fn run(&self, first: K, wanted: impl Fn(&K) -> bool) -> Vec<usize> {
        self.places.range(first..).take_while(|(key, _)| wanted(key)).map(|(_, at)| *at).collect()
    }

    pub(super) fn at(&self, place: usize) -> &V {
        &self.rows[place]
    }

    pub(super) fn at_mut(&mut self, place: usize) -> &mut V {
        &mut self.rows[place]
    }

    /// The one of that key, made where it is not there.
    pub(super) fn entry(&mut self, key: K, make: impl FnOnce(&K) -> V) -> &mut V {
        let Table { rows, places } = self;
        let place = match places.get(&key) {
            Some(place) => *place,
            None => {
                rows.push(make(&key));
                places.insert(key, rows.len() - 1);
                rows.len() - 1
            }
        };
        &mut rows[place]
    }
}
